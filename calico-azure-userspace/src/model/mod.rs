//! Manifests: raw objects in, validated resources out, each problem reported on its object.

mod types;

pub use types::*;
