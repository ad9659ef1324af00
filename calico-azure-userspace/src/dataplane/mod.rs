//! Desired tables into the kernel: what must change is planned as data, then carried out through one trait.
//!
//! The only module that names aya. `agent` drives it; it knows nothing of policies or sources.

pub mod apply;
pub mod attach;
pub mod cgroup;
mod clock;
pub mod counters;
pub mod expire;
pub mod fill;
pub mod host;
pub mod image;
pub mod inherit;
pub mod io;
pub mod kernel;
pub mod links;
pub mod live;
mod load;
pub mod maps;
mod op;
pub mod others;
pub mod pins;
pub mod plan;
mod prefix_keys;
pub mod ring;
mod settings;
pub mod syscall;
pub mod testrun;

pub use apply::{Applied, ApplyError, Dataplane, Published};
pub use image::Image;
pub use io::{FakeIo, MapIo, Table};
pub use op::Op;
pub use plan::{Plan, PlanError, plan, plan_change};
