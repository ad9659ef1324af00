//! Tests of whole analyses.

mod difference;
mod oracle;
mod speed;
