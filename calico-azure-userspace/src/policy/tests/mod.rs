//! Compiled verdicts against reference verdicts, and facts of the policy model one by one.

mod compiler;
mod coverage;
mod differential;
mod facts;
mod ports;
mod profiles;
mod sources;
mod speed;
mod world;
