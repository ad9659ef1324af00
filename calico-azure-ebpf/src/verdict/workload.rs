//! The two programs on a pod's host-side interface.

use super::datagram::{Known, know};
use super::express;
use super::flow::{AtPod, track};
use super::judge::Pod;
use super::related::{Quoted, quote};
use super::{AllTables, FamilyTables, Outcome, Tables, nothing_left, part};
use crate::abi::{
    CONFIG_ALLOW_IPIP, CONFIG_ALLOW_UNKNOWN, CONFIG_ALLOW_VXLAN, CONFIG_BRIDGED, Config, Hook, LEG_IN,
    LEG_OUT, Reason, route, word,
};
use crate::packet::vlan::behind_tags;
use crate::packet::{ETHERNET, Family, Network, Packet, Transport, V4, V6, discovery, ethertype, protocol};

/// A packet that a pod sends.
#[inline(always)]
pub fn from_workload<P: Packet, T: AllTables>(packet: &P, tables: &T) -> Outcome {
    at_pod::<P, T, { part::WHOLE }>(packet, tables, Hook::FromWorkload, nothing_left)
}

/// A packet on its way to a pod.
#[inline(always)]
pub fn to_workload<P: Packet, T: AllTables>(packet: &P, tables: &T) -> Outcome {
    at_pod::<P, T, { part::WHOLE }>(packet, tables, Hook::ToWorkload, nothing_left)
}

/// Either of them, for the families in `PART`; `leave` tells what became of a packet of another.
#[inline(always)]
pub fn at_pod<P: Packet, T: AllTables, const PART: u8>(
    packet: &P,
    tables: &T,
    hook: Hook,
    leave: impl FnOnce() -> Outcome,
) -> Outcome {
    let leg = if matches!(hook, Hook::FromWorkload) {
        LEG_OUT
    } else {
        LEG_IN
    };
    let bare = match behind_tags(packet) {
        Err(reason) => reason,
        Ok((ethertype::ARP, start)) => arp(packet, tables, leg, start),
        Ok((ethertype::IPV4, _)) if PART & part::V4 == 0 => return leave(),
        Ok((ethertype::IPV6, _)) if PART & part::V6 == 0 => return leave(),
        Ok((ethertype, start)) => {
            if let Some(config) = tables.config().filter(|config| config.epoch != 0) {
                let endpoint = tables.endpoint(packet.ifindex(), leg);
                match endpoint.filter(|word| !is_awaited(config, packet.ifindex(), *word)) {
                    // As with ARP: its neighbours are a new pod's to find while its policy is on the way.
                    None if ethertype == ethertype::IPV6
                        && is_neighbours(packet, tables, config, u64::from(start) | u64::from(leg) << 32)
                            != 0 =>
                    {
                        Reason::AlwaysAllowed
                    }
                    None if config.flags & CONFIG_ALLOW_UNKNOWN != 0 => Reason::UnknownInterface,
                    None if endpoint.is_some() => Reason::NotReady,
                    None => Reason::NoEndpoint,
                    Some(endpoint) if PART & part::V4 != 0 && ethertype == ethertype::IPV4 => {
                        let at = At {
                            hook,
                            endpoint,
                            start,
                        };
                        if PART & part::LONG == 0
                            && start == ETHERNET
                            && express::is_approved::<V4, P, T>(packet, tables, config, leg) != 0
                        {
                            Reason::Established
                        } else {
                            return family::<V4, P, T>(packet, tables, config, &at);
                        }
                    }
                    Some(endpoint) if PART & part::V6 != 0 && ethertype == ethertype::IPV6 => {
                        let at = At {
                            hook,
                            endpoint,
                            start,
                        };
                        if PART & part::LONG == 0
                            && start == ETHERNET
                            && express::is_approved::<V6, P, T>(packet, tables, config, leg) != 0
                        {
                            Reason::Established
                        } else {
                            return family::<V6, P, T>(packet, tables, config, &at);
                        }
                    }
                    Some(_) => Reason::UnsupportedEthertype,
                }
            } else {
                Reason::NotConfigured
            }
        }
    };
    let outcome = Outcome::of(bare);
    tables.record_bare(hook, packet, outcome);
    outcome
}

/// Whether the next epoch will know the endpoint, or this one no longer does. Until then its interface is an unknown one's; and so are
/// its addresses, which come and go with it.
#[inline(always)]
fn is_awaited(config: &Config, ifindex: u32, endpoint: u64) -> bool {
    word::slot(endpoint, config.epoch) == 0 && word::slot_check(endpoint) == word::check24(ifindex)
}

/// Where a packet is, and what of it.
struct At {
    hook: Hook,
    /// The endpoint's slot word for the packet's direction.
    endpoint: u64,
    /// Where the network header begins.
    start: u32,
}

/// A function of its own in the kernel: the two families' variables need not fit into one stack frame.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn family<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    at: &At,
) -> Outcome {
    let hook = at.hook;
    let zero = T::opaque(0) as u32;
    let mut network = Network::unread(zero);
    if let Err(reason) = done(read(packet, at.start, &mut network)) {
        let outcome = Outcome::of(reason);
        tables.record_bare(hook, packet, outcome);
        return outcome;
    }
    let mut transport = Transport::unread(zero);
    let leg = if matches!(hook, Hook::FromWorkload) {
        LEG_OUT
    } else {
        LEG_IN
    };
    let outcome = judge(
        packet,
        tables,
        config,
        &mut network,
        &mut transport,
        at.endpoint,
        leg,
    );
    tables.record(hook, packet, &network, &transport, outcome);
    outcome
}

/// Reads the network layer. In the kernel a function of its own, as others: they share the room on the stack.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn read<F: Family, P: Packet>(packet: &P, start: u32, network: &mut Network<F>) -> u32 {
    code(Network::parse(packet, start).map(|read| *network = read))
}

/// A function of its own in the kernel returns a code: its BTF cannot describe every `Result`.
#[inline(always)]
pub(super) fn code(result: Result<(), Reason>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

/// What such a code says. Only these reasons come this way.
#[inline(always)]
pub(super) fn done(code: u32) -> Result<(), Reason> {
    const EXTENSIONS: u32 = Reason::ExtensionHeaders as u32;
    const UNRELATED: u32 = Reason::UnrelatedError as u32;
    match code {
        0 => Ok(()),
        EXTENSIONS => Err(Reason::ExtensionHeaders),
        UNRELATED => Err(Reason::UnrelatedError),
        _ => Err(Reason::Malformed),
    }
}

#[inline(always)]
fn judge<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    network: &mut Network<F>,
    transport: &mut Transport,
    endpoint: u64,
    leg: u32,
) -> Outcome {
    let from_workload = leg == LEG_OUT;
    let ifindex = packet.ifindex();
    let owned = !is_own(config, leg) || {
        let own = if from_workload { network.src } else { network.dst };
        owns::<F, T>(tables, config, ifindex, own)
    };
    // Link control has no source yet, or a link-local one.
    let from_link = owned || !from_workload || F::is_link_source(network.src);
    if from_link
        && F::is_link_control(packet, network, from_workload)
        && (!from_workload || leaves_not::<F, T>(tables, config, network) != 0)
    {
        return Outcome::of(introduction(packet, tables, config, network, leg));
    }
    if !owned {
        return Outcome::of(if from_workload {
            Reason::SpoofedSource
        } else {
            Reason::ForeignDestination
        });
    }
    let from_host = !from_workload && P::opaque(u64::from(packet.ingress_ifindex())) == 0;
    let mut at = AtPod {
        endpoint,
        ifindex,
        policy_port: 0,
        leg,
        from_host,
        error: false,
        defers: from_workload,
        of: Quoted {
            peer: if from_workload { network.dst } else { network.src },
            known: Known::nothing(),
        },
        network,
    };
    if let Err(reason) = done(know(packet, tables, at.network, leg, &mut at.of.known)) {
        return Outcome::of(reason);
    }
    *transport = at.of.known.transport;
    at.policy_port = transport.policy_port;
    if at.network.options && !from_host {
        return Outcome::of(Reason::IpOptions);
    }
    if from_workload && is_tunnel(config, &at.of.known) {
        return Outcome::of(Reason::WorkloadTunnel);
    }
    let kind = (transport.policy_port >> 8) as u8;
    at.error = F::is_error(at.of.known.protocol, kind) && !at.of.known.blind;
    if at.error {
        if from_host {
            return Outcome::of(Reason::FromHost);
        }
        if let Err(reason) = done(quote(packet, tables, at.network, leg, &mut at.of)) {
            return Outcome::of(reason);
        }
    }
    let word = T::opaque(u64::from(at.from_host) | u64::from(at.error) << 1);
    (at.from_host, at.error) = (word & 1 != 0, word & 2 != 0);
    at.settle::<T>();
    let mut outcome = track(tables, config, &at, &Pod { packet });
    if matches!(outcome.reason, Reason::Service) {
        match tables
            .endpoint_mark(ifindex)
            .and_then(|word| word::mark_of(word, ifindex))
        {
            None => outcome = Outcome::of(Reason::TableRace),
            Some(mark) => packet.set_mark(config.with_mark(packet.mark(), mark)),
        }
    }
    outcome
}

/// Whether one end of what passes must be the pod's own address: of what it sends, always. Only a bridge brings it what is for others.
#[inline(always)]
pub(super) fn is_own(config: &Config, leg: u32) -> bool {
    leg == LEG_OUT || config.flags & CONFIG_BRIDGED != 0
}

#[inline(always)]
fn owns<F: Family, T: FamilyTables<F>>(tables: &T, config: &Config, ifindex: u32, address: F::Addr) -> bool {
    tables.owns(ifindex, address) & (1 << (config.epoch & 1)) != 0
}

/// As [`stays`]. A function of its own in the kernel, for the room on the stack.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn leaves_not<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    config: &Config,
    network: &Network<F>,
) -> u64 {
    T::opaque(u64::from(stays::<F, T>(tables, config, network.dst)))
}

/// Whether it is what neighbours find each other by, between a pod that nobody knows and its link; `place` is where its network header
/// begins, above it the leg.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn is_neighbours<P: Packet, T: AllTables>(packet: &P, tables: &T, config: &Config, place: u64) -> u64 {
    let is_one = discovery(packet, place as u32)
        .is_some_and(|dst| place >> 32 != u64::from(LEG_OUT) || stays::<V6, T>(tables, config, dst));
    T::opaque(u64::from(is_one))
}

/// Whether what a pod sends there gets no further than its link: to neighbours, which are the host and on a bridge the node's
/// other pods. A router would forward the rest, whatever its hop limit says about where it came from.
#[inline(always)]
fn stays<F: Family, T: FamilyTables<F>>(tables: &T, config: &Config, dst: F::Addr) -> bool {
    let neighbours = if config.flags & CONFIG_BRIDGED != 0 {
        route::LOCAL_HOST | route::LOCAL_WORKLOAD | route::LOCAL_POD_CIDR
    } else {
        route::LOCAL_HOST
    };
    F::is_link_destination(dst) || tables.route(dst) & neighbours != 0
}

/// ARP (RFC 826), whose frames have the sender's addresses behind eight bytes. On a bridge a pod that says that another's address is
/// at its interface gets what is for that one, or keeps it from arriving.
#[inline(always)]
fn arp<P: Packet, T: AllTables>(packet: &P, tables: &T, leg: u32, start: u32) -> Reason {
    // Ethernet and IPv4, six and four bytes.
    const KINDS: u32 = 0x0001_0800;
    const LENGTHS: u32 = 0x0604;
    let Some(config) = tables.config().filter(|config| config.epoch != 0) else {
        return Reason::AlwaysAllowed;
    };
    let endpoint = tables.endpoint(packet.ifindex(), leg);
    let unknown = endpoint.is_none_or(|word| is_awaited(config, packet.ifindex(), word));
    if leg != LEG_OUT || config.flags & CONFIG_BRIDGED == 0 || unknown {
        return Reason::AlwaysAllowed;
    }
    let (Some([kinds, lengths]), Some([sender])) = (packet.words::<2>(start), packet.words::<1>(start + 14))
    else {
        return Reason::Malformed;
    };
    if u32::from_be(kinds) != KINDS || u32::from_be(lengths) >> 16 != LENGTHS {
        return Reason::Malformed;
    }
    // Whoever asks whether an address is free has none (RFC 5227).
    if sender == 0 || owns::<V4, T>(tables, config, packet.ifindex(), sender) {
        Reason::AlwaysAllowed
    } else {
        Reason::SpoofedSource
    }
}

/// Link control, which passes but for the same lie in IPv6.
#[inline(always)]
fn introduction<F: Family, P: Packet, T: FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    network: &Network<F>,
    leg: u32,
) -> Reason {
    if leg == LEG_OUT
        && config.flags & CONFIG_BRIDGED != 0
        && let Some(address) = F::advertised(packet, network)
        && !owns::<F, T>(tables, config, packet.ifindex(), address)
    {
        return Reason::SpoofedSource;
    }
    Reason::AlwaysAllowed
}

/// Whether it is a tunnel of a pod's making, which would carry its packets past policy.
#[inline(always)]
pub(super) fn is_tunnel(config: &Config, known: &Known) -> bool {
    let port = known.transport.dport;
    let nodes = config.tunnel_port != 0 && port == config.tunnel_port;
    let vxlan = known.protocol == protocol::UDP && (port == config.vxlan_port || nodes);
    known.protocol == protocol::IPIP && config.flags & CONFIG_ALLOW_IPIP == 0
        || vxlan && config.flags & CONFIG_ALLOW_VXLAN == 0
}
