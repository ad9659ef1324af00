//! Fuzz targets: each turns any bytes into an input and panics if a property does not hold of it.
//!
//! `cargo xtask fuzz` drives them by coverage; `cargo xtask test` replays what is in `tests/corpus`.

mod broken;
mod packet;
mod policy;
mod resources;
mod selector;
mod strict;

pub use packet::{Counted, counted};

/// One thing to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its directory in `tests/corpus` as well.
    pub name: &'static str,
    /// Panics if a property does not hold.
    pub check: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "selector",
        check: selector::check,
    },
    Target {
        name: "resources",
        check: resources::check,
    },
    Target {
        name: "broken",
        check: broken::check,
    },
    Target {
        name: "packet",
        check: packet::check,
    },
    Target {
        name: "policy",
        check: policy::check,
    },
];
