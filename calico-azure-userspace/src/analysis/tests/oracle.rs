//! The analysis against the reference.
