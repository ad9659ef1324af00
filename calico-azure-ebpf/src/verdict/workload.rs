//! The two programs on a pod's host-side interface.

use super::flow::{AtPod, track};
use super::{AllTables, FamilyTables, Outcome, Tables};
use crate::abi::{Config, Hook, LEG_IN, LEG_OUT, Reason, word};
use crate::packet::{Family, Network, Packet, Transport, V4, V6, ethertype, fragment};

/// A packet that a pod sends.
#[inline(always)]
pub fn from_workload<P: Packet, T: AllTables>(packet: &P, tables: &T) -> Outcome {
    dispatch(packet, tables, Hook::FromWorkload)
}

/// A packet on its way to a pod.
#[inline(always)]
pub fn to_workload<P: Packet, T: AllTables>(packet: &P, tables: &T) -> Outcome {
    dispatch(packet, tables, Hook::ToWorkload)
}

#[inline(always)]
fn dispatch<P: Packet, T: AllTables>(packet: &P, tables: &T, hook: Hook) -> Outcome {
    let leg = if matches!(hook, Hook::FromWorkload) {
        LEG_OUT
    } else {
        LEG_IN
    };
    let ethertype = packet.ethertype();
    let bare = if ethertype == ethertype::ARP {
        Reason::AlwaysAllowed
    } else if let Some(config) = tables.config().filter(|config| config.epoch != 0) {
        match tables.endpoint(packet.ifindex(), leg) {
            None => Reason::NoEndpoint,
            Some(endpoint) if ethertype == ethertype::IPV4 => {
                return family::<V4, P, T>(packet, tables, config, hook, endpoint, leg);
            }
            Some(endpoint) if ethertype == ethertype::IPV6 => {
                return family::<V6, P, T>(packet, tables, config, hook, endpoint, leg);
            }
            Some(_) => Reason::UnsupportedEthertype,
        }
    } else {
        Reason::NotConfigured
    };
    let outcome = Outcome::of(bare);
    tables.record_bare(hook, packet, outcome);
    outcome
}

#[inline(always)]
fn family<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    hook: Hook,
    endpoint: u64,
    leg: u32,
) -> Outcome {
    let network = match Network::<F>::parse(packet) {
        Ok(network) => network,
        Err(reason) => {
            let outcome = Outcome::of(reason);
            tables.record_bare(hook, packet, outcome);
            return outcome;
        }
    };
    let mut transport = Transport::default();
    let outcome = judge(packet, tables, config, &network, &mut transport, endpoint, leg);
    tables.record(hook, packet, &network, &transport, outcome);
    outcome
}

#[inline(always)]
fn judge<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    network: &Network<F>,
    transport: &mut Transport,
    endpoint: u64,
    leg: u32,
) -> Outcome {
    let from_workload = leg == LEG_OUT;
    let ifindex = packet.ifindex();
    let owned = !from_workload || tables.owns(ifindex, network.src) & (1 << (config.epoch & 1)) != 0;
    // Link control has no source yet, or a link-local one; it cannot leave the link.
    if F::is_link_control(packet, network, from_workload) && (owned || F::is_link_source(network.src)) {
        return Outcome::of(Reason::AlwaysAllowed);
    }
    if !owned {
        return Outcome::of(Reason::SpoofedSource);
    }
    match ports(packet, tables, network) {
        Ok(read) => *transport = read,
        Err(reason) => return Outcome::of(reason),
    }
    let from_host = !from_workload && P::opaque(u64::from(packet.ingress_ifindex())) == 0;
    let at = AtPod {
        ifindex,
        endpoint,
        network,
        transport: *transport,
        leg,
        from_host,
        defers: from_workload,
    };
    let mut outcome = track(tables, config, &at);
    if matches!(outcome.reason, Reason::Service) {
        match tables
            .endpoint_mark(ifindex)
            .and_then(|word| word::mark_of(word, ifindex))
        {
            None => outcome = Outcome::of(Reason::TableRace),
            Some(mark) => packet.set_mark(config.with_mark(packet.mark(), mark)),
        }
    }
    if outcome.reason.passes() && network.fragment == fragment::FIRST {
        let key = F::frag_key(network.src, network.dst, network.id, network.protocol);
        tables.set_frag(&key, pack(transport));
    }
    outcome
}

/// The packet's ports: its own, or for a later fragment those of its datagram.
#[inline(always)]
pub(super) fn ports<F: Family, P: Packet, T: FamilyTables<F>>(
    packet: &P,
    tables: &T,
    network: &Network<F>,
) -> Result<Transport, Reason> {
    if network.fragment != fragment::LATER {
        return network.transport(packet);
    }
    let key = F::frag_key(network.src, network.dst, network.id, network.protocol);
    tables.frag(&key).map(unpack).ok_or(Reason::UnknownFragment)
}

#[inline(always)]
fn pack(transport: &Transport) -> u64 {
    (u64::from(transport.sport) << 32) | (u64::from(transport.dport) << 16) | u64::from(transport.policy_port)
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "takes the fields of a packed word apart"
)]
fn unpack(word: u64) -> Transport {
    Transport {
        sport: (word >> 32) as u16,
        dport: (word >> 16) as u16,
        policy_port: word as u16,
        flags: 0,
    }
}
