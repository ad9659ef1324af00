//! The two programs on the fabric interface: source validation. Azure discards without a word what it does not
//! know; these say so first.
//!
//! | hook | what | verdict |
//! |---|---|---|
//! | both | not IP; IPv6 neighbour control; `to_fabric`: sent by the host itself | `FabricPass` |
//! | both | malformed network header | drop with that reason |
//! | `from_fabric` | source is a pod, the podCIDR or an address of this node | `LocalSource` |
//! | `from_fabric` | for the node's podCIDR, but no pod has the address (would loop) | `NoSuchWorkload` |
//! | `to_fabric` | forwarded multicast, broadcast, IPIP or GRE | `FabricUnsupported` |
//! | `to_fabric` | forwarded, source neither a pod, the podCIDR or an address of this node nor allowed | `UnknownSource` |
//! | both | the rest | `FabricPass` |

use super::{AllTables, FamilyTables, Outcome, Tables};
use crate::abi::{Hook, Reason, route};
use crate::packet::{Family, Network, Packet, Transport, V4, V6, ethertype, protocol};

/// A packet that arrives from the fabric.
#[inline(always)]
pub fn from_fabric<P: Packet, T: AllTables>(packet: &P, tables: &T) -> Outcome {
    dispatch(packet, tables, Hook::FromFabric)
}

/// A packet that leaves to the fabric.
#[inline(always)]
pub fn to_fabric<P: Packet, T: AllTables>(packet: &P, tables: &T) -> Outcome {
    dispatch(packet, tables, Hook::ToFabric)
}

#[inline(always)]
fn dispatch<P: Packet, T: AllTables>(packet: &P, tables: &T, hook: Hook) -> Outcome {
    let own = matches!(hook, Hook::ToFabric) && packet.ingress_ifindex() == 0;
    // Before the first apply nothing is known about sources; the node's own traffic must not depend on the agent.
    let configured = tables.config().is_some_and(|config| config.epoch != 0);
    match packet.ethertype() {
        ethertype::IPV4 if !own && configured => family::<V4, P, T>(packet, tables, hook),
        ethertype::IPV6 if !own && configured => family::<V6, P, T>(packet, tables, hook),
        _ => {
            let outcome = Outcome::of(Reason::FabricPass);
            tables.record_bare(hook, packet, outcome);
            outcome
        }
    }
}

#[inline(always)]
fn family<F: Family, P: Packet, T: Tables + FamilyTables<F>>(packet: &P, tables: &T, hook: Hook) -> Outcome {
    match Network::<F>::parse(packet) {
        Ok(network) => {
            let reason = match hook {
                Hook::ToFabric => leaving(packet, tables, &network),
                _ => arriving(packet, tables, &network),
            };
            let outcome = Outcome::of(reason);
            tables.record(hook, packet, &network, &Transport::default(), outcome);
            outcome
        }
        Err(reason) => {
            let outcome = Outcome::of(reason);
            tables.record_bare(hook, packet, outcome);
            outcome
        }
    }
}

#[inline(always)]
fn arriving<F: Family, P: Packet, T: FamilyTables<F>>(
    packet: &P,
    tables: &T,
    network: &Network<F>,
) -> Reason {
    const OURS: u32 = route::LOCAL_WORKLOAD | route::LOCAL_POD_CIDR | route::LOCAL_HOST;
    if F::is_link_control(packet, network, false) {
        return Reason::FabricPass;
    }
    if tables.route(network.src) & OURS != 0 {
        return Reason::LocalSource;
    }
    let to = tables.route(network.dst);
    if to & route::LOCAL_POD_CIDR != 0 && to & (route::LOCAL_WORKLOAD | route::LOCAL_HOST) == 0 {
        return Reason::NoSuchWorkload;
    }
    Reason::FabricPass
}

#[inline(always)]
fn leaving<F: Family, P: Packet, T: FamilyTables<F>>(
    _packet: &P,
    tables: &T,
    network: &Network<F>,
) -> Reason {
    const KNOWN: u32 =
        route::LOCAL_WORKLOAD | route::LOCAL_POD_CIDR | route::LOCAL_HOST | route::ALLOWED_SOURCE;
    if tables.route(network.src) & KNOWN == 0 {
        return Reason::UnknownSource;
    }
    let carried = !matches!(network.protocol, protocol::IPIP | protocol::GRE);
    if !carried || F::is_multicast(network.dst) {
        Reason::FabricUnsupported
    } else {
        Reason::FabricPass
    }
}
