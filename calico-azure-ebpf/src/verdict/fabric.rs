//! The programs on the fabric interface: source validation, then the interface's host endpoint, if it has one
//! ([`host`]). Azure discards without a word what it does not
//! know; these say so first.
//!
//! | hook | what | verdict |
//! |---|---|---|
//! | both | not IP; IPv6 neighbour control; `to_fabric`: sent by the host itself, without a host endpoint | `FabricPass` |
//! | both | more than two VLAN tags inside the frame | `VlanTagged`; behind fewer, what follows is judged |
//! | both | malformed network header | drop with that reason |
//! | `from_fabric` | source is a pod, the podCIDR or an address of this node | `LocalSource` |
//! | `from_fabric` | VXLAN between nodes, with an inner source that is not the sending node's | `TunnelSource` |
//! | both; `to_fabric`: forwarded | for the node's podCIDR, but no pod has the address (would loop) | `NoSuchWorkload`, see [`super::reset`] |
//! | `from_fabric` | for an unknown address behind an interface that no agent has looked at yet | `NoSuchWorkload` |
//! | `to_fabric` | forwarded multicast, broadcast, IPIP or GRE | `FabricUnsupported` |
//! | `to_fabric` | forwarded, source neither a pod that we know nor an address of this node nor of a service, nor allowed | `UnknownSource` |
//! | both | the rest, without a host endpoint | `FabricPass` |
//! | both | the rest | what the host endpoint says |

use super::workload::{code, done};
use super::{AllTables, FamilyTables, Outcome, Tables};
use super::{host, tunnel, untracked};
use crate::abi::{ANY_PORT, ANY_PROTOCOL, CONFIG_LINKS, Config, Hook, MARK_HOST, Reason, route};
use crate::packet::vlan::behind_tags;
use crate::packet::{Family, Network, Packet, Transport, V4, V6, ethertype, fragment, protocol};

/// A packet that arrives from the fabric.
#[inline(always)]
pub fn from_fabric<P: Packet, T: AllTables>(packet: &P, tables: &T) -> Outcome {
    whole(packet, tables, Hook::FromFabric)
}

/// A packet that leaves to the fabric.
#[inline(always)]
pub fn to_fabric<P: Packet, T: AllTables>(packet: &P, tables: &T) -> Outcome {
    whole(packet, tables, Hook::ToFabric)
}

#[inline(always)]
fn whole<P: Packet, T: AllTables>(packet: &P, tables: &T, hook: Hook) -> Outcome {
    match validate(packet, tables, hook) {
        Next::Done(outcome) => outcome,
        Next::Host4 => at_host::<V4, P, T>(packet, tables, hook),
        Next::Host6 => at_host::<V6, P, T>(packet, tables, hook),
    }
}

/// A packet that arrives from the fabric, at XDP: untracked policy of the interface's host endpoint. Drops nothing that
/// [`from_fabric`] would not drop, and leaves to it what passes.
#[inline(always)]
pub fn untracked<P: Packet, T: AllTables>(packet: &P, tables: &T) -> Outcome {
    if let Some(config) = tables.config().filter(|config| config.epoch != 0) {
        let again = match packet.ethertype() {
            ethertype::IPV4 => untracked::is_again::<V4, P, T>(packet, tables, config),
            ethertype::IPV6 => untracked::is_again::<V6, P, T>(packet, tables, config),
            _ => None,
        };
        if let Some(outcome) = again {
            return outcome;
        }
        match behind_tags(packet) {
            Ok((ethertype::IPV4, start)) => return early::<V4, P, T>(packet, tables, config, start),
            Ok((ethertype::IPV6, start)) => return early::<V6, P, T>(packet, tables, config, start),
            _ => {}
        }
    }
    Outcome::of(Reason::FabricPass)
}

#[inline(always)]
fn early<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    start: u32,
) -> Outcome {
    let pass = Outcome::of(Reason::FabricPass);
    let Ok(network) = Network::<F>::parse(packet, start) else {
        // `from_fabric` says why.
        return pass;
    };
    if F::is_link_control(packet, &network, false) || network.fragment == fragment::LATER {
        return pass;
    }
    let Ok(transport) = network.transport(packet) else {
        return pass;
    };
    let Some(outcome) = untracked::judge(packet, tables, config, &network, transport) else {
        return pass;
    };
    tables.record(Hook::Untracked, packet, &network, &transport, outcome);
    outcome
}

/// What [`validate`] found.
pub enum Next {
    /// It is decided.
    Done(Outcome),
    /// The host endpoint is to be asked, by [`at_host`] for IPv4.
    Host4,
    /// As [`Next::Host4`], for IPv6.
    Host6,
}

/// Everything but the host endpoint's policy. Two steps, because no program has room for both.
#[inline(always)]
pub fn validate<P: Packet, T: AllTables>(packet: &P, tables: &T, hook: Hook) -> Next {
    let own = matches!(hook, Hook::ToFabric) && packet.ingress_ifindex() == 0;
    let mut bare = Reason::FabricPass;
    // Before the first apply nothing is known about sources; the node's own traffic must not depend on the agent.
    if let Some(config) = tables.config().filter(|config| config.epoch != 0) {
        let governed = host::governs(tables, config, packet.ifindex());
        if governed || !own {
            let at = At {
                hook,
                config,
                own,
                governed,
            };
            match behind_tags(packet) {
                Ok((ethertype::IPV4, start)) => {
                    return family::<V4, P, T>(packet, tables, &at, start).map_or(Next::Host4, Next::Done);
                }
                Ok((ethertype::IPV6, start)) => {
                    return family::<V6, P, T>(packet, tables, &at, start).map_or(Next::Host6, Next::Done);
                }
                Ok(_) => {}
                Err(reason) => bare = reason,
            }
        }
    }
    let outcome = Outcome::of(bare);
    tables.record_bare(hook, packet, outcome);
    Next::Done(outcome)
}

/// The policy of the interface's host endpoint, for a packet that [`validate`] left to it.
#[inline(always)]
pub fn at_host<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    hook: Hook,
) -> Outcome {
    let zero = T::opaque(0) as u32;
    let mut network = Network::unread(zero);
    let reason = match (tables.config(), behind_tags(packet)) {
        (None, _) => Reason::NotConfigured,
        (_, Err(reason)) => reason,
        (Some(config), Ok((_, start))) => match done(read_again(packet, start, &mut network)) {
            Err(reason) => reason,
            Ok(()) => {
                let mut transport = Transport::unread(zero);
                let ingress = !matches!(hook, Hook::ToFabric);
                let outcome = host::judge(packet, tables, config, &mut network, &mut transport, ingress);
                tables.record(hook, packet, &network, &transport, outcome);
                if ingress && matches!(outcome.reason, Reason::Service) {
                    packet.set_mark(config.with_mark(packet.mark(), MARK_HOST));
                }
                return outcome;
            }
        },
    };
    let outcome = Outcome::of(reason);
    tables.record_bare(hook, packet, outcome);
    outcome
}

/// Reads the network layer, or what [`validate`] kept of it. As [`super::workload::read`], a function of its own in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn read_again<F: Family, P: Packet>(packet: &P, start: u32, network: &mut Network<F>) -> u32 {
    code(Network::again(packet, start).map(|read| *network = read))
}

/// Where a packet is.
struct At<'a> {
    hook: Hook,
    config: &'a Config,
    /// The host itself sends it.
    own: bool,
    /// The interface has a host endpoint.
    governed: bool,
}

#[inline(always)]
fn family<F: Family, P: Packet, T: AllTables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    at: &At<'_>,
    start: u32,
) -> Option<Outcome> {
    let hook = at.hook;
    let outcome = match Network::<F>::parse(packet, start) {
        Ok(network) => {
            let ingress = !matches!(hook, Hook::ToFabric);
            let link = (ingress || at.own) && F::is_link_control(packet, &network, false);
            let reason = if link || at.own {
                Reason::FabricPass
            } else if ingress {
                arriving(packet, tables, at.config, &network)
            } else {
                leaving(
                    tables,
                    at.config,
                    &network,
                    packet.ingress_ifindex() == packet.ifindex(),
                )
            };
            if at.governed && !link && reason.passes() {
                packet.keep(network.pack());
                return None;
            }
            let outcome = Outcome::of(reason);
            tables.record(hook, packet, &network, &Transport::default(), outcome);
            outcome
        }
        Err(reason) => {
            let outcome = Outcome::of(reason);
            tables.record_bare(hook, packet, outcome);
            outcome
        }
    };
    Some(outcome)
}

#[inline(always)]
fn arriving<F: Family, P: Packet, T: AllTables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    network: &Network<F>,
) -> Reason {
    const OURS: u32 = route::LOCAL_WORKLOAD | route::LOCAL_POD_CIDR | route::LOCAL_HOST;
    let known = |address| FamilyTables::<F>::route(tables, address);
    let from = known(network.src);
    if from & OURS != 0 {
        return Reason::LocalSource;
    }
    let to = known(network.dst);
    if is_nobodys(to) {
        return Reason::NoSuchWorkload;
    }
    // A load balancer's address is as often here as it is unknown.
    let asks_links = config.flags & CONFIG_LINKS != 0 && to & route::KINDS == 0;
    if asks_links
        && !is_services::<F, T>(tables, config, network.dst)
        && is_open(packet, tables, network) != 0
    {
        return Reason::NoSuchWorkload;
    }
    if network.protocol == protocol::UDP && to & route::LOCAL_HOST != 0 {
        return tunnel::inner(packet, tables, network, from);
    }
    Reason::FabricPass
}

/// Whether the packet would go on by an interface that is not in `LINKS`. A function of its own in the kernel, for the room on the stack.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn is_open<F: Family, P: Packet, T: Tables>(packet: &P, tables: &T, network: &Network<F>) -> u64 {
    T::opaque(u64::from(tables.is_open(packet.leads_to::<F>(network.dst))))
}

/// Whether an address of which this is known (`abi::route` bits) is in the node's podCIDR, and no pod has it.
#[inline(always)]
#[must_use]
pub const fn is_nobodys(known: u32) -> bool {
    known & route::LOCAL_POD_CIDR != 0 && known & (route::LOCAL_WORKLOAD | route::LOCAL_HOST) == 0
}

/// Whether it is an address of a load balancer's or an external one: what kube-proxy has translated on the way in, its answers have as
/// their source.
#[inline(always)]
fn is_services<F: Family, T: FamilyTables<F>>(tables: &T, config: &Config, src: F::Addr) -> bool {
    tables.service(src, ANY_PORT, ANY_PROTOCOL) & 1 << (config.epoch & 1) != 0
}

/// `back`: it leaves by the interface that it came in by, as an answer that is made in a pod's place does.
#[inline(always)]
fn leaving<F: Family, T: FamilyTables<F>>(
    tables: &T,
    config: &Config,
    network: &Network<F>,
    back: bool,
) -> Reason {
    const KNOWN: u32 = route::LOCAL_WORKLOAD | route::LOCAL_HOST | route::ALLOWED_SOURCE;
    let from = tables.route(network.src);
    // A pod's address is known once its interface has our programs, and no packet of it leaves the node before.
    if from & KNOWN == 0
        && !(back && from & route::LOCAL_POD_CIDR != 0)
        && !is_services::<F, T>(tables, config, network.src)
    {
        return Reason::UnknownSource;
    }
    let carried = !matches!(network.protocol, protocol::IPIP | protocol::GRE);
    if !carried || F::is_multicast(network.dst) {
        Reason::FabricUnsupported
    } else if is_nobodys(tables.route(network.dst)) {
        Reason::NoSuchWorkload
    } else {
        Reason::FabricPass
    }
}
