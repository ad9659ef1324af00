//! Where inputs come from. Each source has a thread of its own and only sends.

pub mod dir;
pub mod links;
