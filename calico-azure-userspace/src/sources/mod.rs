//! Where inputs come from. Each source has a thread of its own and only sends.

pub mod attachments;
pub mod dir;
pub mod filters;
pub mod kube;
pub mod links;
pub mod nftables;
pub(crate) mod notifications;

use crate::model::{Key, Problem, Resource};

/// One change of the inputs.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most events are upserts, a box for each would cost more"
)]
pub enum Event {
    /// New or changed.
    Upsert(Resource),
    /// Gone.
    Delete(Key),
    /// Everything that is wrong now; replaces what was said before.
    Problems(Vec<Problem>),
    /// Everything has been read: what was sent so far is all there is. Sent once.
    InSync,
}
