//! Two addresses that Azure answers on every node, and what pods may ask there whatever policy says. The host itself may always.
//!
//! | from a pod to | verdict |
//! |---|---|
//! | the wireserver, TCP 80 and 32526 (credentials of the node's agent) | `Wireserver`, unless policy is to decide |
//! | the wireserver, anything else (DNS) | policy's |
//! | the instance metadata service | policy's, or `Imds`, or `AlwaysAllowed`, as the node's settings say |

use crate::abi::{CONFIG_ALLOW_IMDS, CONFIG_ALLOW_WIRESERVER, CONFIG_DENY_IMDS, Reason};
use crate::packet::protocol;

/// 168.63.129.16 in every region and cloud, network order.
pub const WIRESERVER: u32 = u32::from_ne_bytes([168, 63, 129, 16]);
/// 169.254.169.254, network order.
pub const IMDS: u32 = u32::from_ne_bytes([169, 254, 169, 254]);
/// The wireserver's ports that only a node's agent needs: HTTP and HostGAPlugin.
const PRIVILEGED: [u16; 2] = [80, 32526];

/// What is decided before policy about a flow of a pod's to `to`, an IPv4 address in network order; `port` is not known of a
/// later fragment. `flags` are `Config::flags`.
#[inline(always)]
#[must_use]
pub fn guard(flags: u32, to: u32, protocol: u8, port: Option<u16>) -> Option<Reason> {
    if to == IMDS {
        return if flags & CONFIG_DENY_IMDS != 0 {
            Some(Reason::Imds)
        } else if flags & CONFIG_ALLOW_IMDS != 0 {
            Some(Reason::AlwaysAllowed)
        } else {
            None
        };
    }
    let privileged = match port {
        Some(port) => port == PRIVILEGED[0] || port == PRIVILEGED[1],
        None => true,
    };
    let guarded = to == WIRESERVER && protocol == protocol::TCP && privileged;
    (guarded && flags & CONFIG_ALLOW_WIRESERVER == 0).then_some(Reason::Wireserver)
}
