//! Where a frame of an input is seen, by the byte before it.

use super::world;
use crate::harness::scenario::{A, B, FABRIC};

/// Where a frame is seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) hook: Hook,
    pub(super) ifindex: u32,
    pub(super) ingress_ifindex: u32,
    pub(super) mark: u32,
}

/// What sees it. The names that end in `s` are of a fabric interface without a host endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    From,
    To,
    Arrives,
    Leaves,
    /// `from_fabric` and `host_in4`, `host_in6`.
    HostIn,
    /// `to_fabric` and `host_out4`, `host_out6`.
    HostOut,
    Untracked,
    Reset,
    Service,
    ToHost,
}

impl At {
    pub(super) fn of(byte: u8) -> Self {
        let pod = if byte & 4 == 0 { A } else { B };
        // Nobody lives behind the last one.
        let pod = if byte & 24 == 24 { 99 } else { pod };
        let sender = if byte & 8 == 0 { A } else { B };
        let (hook, ifindex) = match (byte >> 6, byte & 3) {
            (0, 0) => (Hook::From, pod),
            (0, 1) => (Hook::To, pod),
            (0, 2) => (Hook::Arrives, world::PLAIN),
            (0, _) => (Hook::Leaves, world::PLAIN),
            (2, 0) => (Hook::Service, if byte & 4 == 0 { A } else { B }),
            (2, 1) => (Hook::Service, FABRIC),
            (2, 2) => (Hook::ToHost, 1),
            (2, _) => (Hook::Service, FABRIC),
            (_, 0) => (Hook::Untracked, FABRIC),
            (_, 1) => (Hook::Reset, FABRIC),
            (_, 2) => (Hook::HostIn, FABRIC),
            (_, _) => (Hook::HostOut, FABRIC),
        };
        let mark = match hook {
            // kube-proxy's own bit beside it.
            Hook::Service | Hook::ToHost => {
                let mark = if byte & 3 == 3 {
                    world::NOBODYS
                } else {
                    world::mark_of(sender)
                };
                mark | (u32::from(byte & 16 != 0) * world::MASQUERADE)
            }
            _ => 0,
        };
        Self {
            hook,
            ifindex,
            ingress_ifindex: u32::from(byte & 32 == 0),
            mark,
        }
    }
}
