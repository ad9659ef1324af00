//! The way of most packets: plain ones of established flows that are approved. It decides nothing that [`super::flow`] would
//! decide differently, and leaves to it whatever is not as simple.

use super::entry::{FOUND, FOUND_APPROVED, FOUND_PROMOTE, Sight, consult};
use super::workload::is_own;
use super::{CtTable, FamilyTables, Tables};
use crate::abi::{Config, LEG_OUT};
use crate::packet::{Family, Packet, protocol, tcp};

/// Whether a packet at a pod's interface, with an Ethernet header and no tags, is one of those; then its flow has noted it. A function of
/// its own in the kernel: to the verifier all that comes of it is a number.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn is_approved<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    leg: u32,
) -> u64 {
    T::opaque(u64::from(look(packet, tables, config, leg)))
}

#[inline(always)]
fn look<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    leg: u32,
) -> bool {
    let Some(plain) = F::plain(packet) else {
        return false;
    };
    let sends = leg == LEG_OUT;
    // These begin a flow; what the host sends has a reason of its own; and a pod's tunnels are looked at more closely.
    let begins = plain.flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    let from_host = !sends && packet.ingress_ifindex() == 0;
    let tunnel = sends
        && plain.protocol == protocol::UDP
        && (plain.dport == config.vxlan_port || plain.dport == config.tunnel_port);
    if begins || from_host || tunnel || plain.src == plain.dst {
        return false;
    }
    let own = if sends { plain.src } else { plain.dst };
    if is_own(config, leg) && tables.owns(packet.ifindex(), own) & (1 << (config.epoch & 1)) == 0 {
        return false;
    }
    let source_first = F::less(plain.src, plain.dst);
    let key = if source_first {
        F::ct_key([plain.src, plain.dst], [plain.sport, plain.dport], plain.protocol)
    } else {
        F::ct_key([plain.dst, plain.src], [plain.dport, plain.sport], plain.protocol)
    };
    let sender = T::opaque(u64::from(!source_first)) as u32 & 1;
    let sight = Sight {
        sender,
        pod: sender ^ leg,
        leg,
        protocol: plain.protocol,
        flags: plain.flags,
        from_host: false,
        error: false,
        defers: sends,
    };
    let now = tables.now();
    let found = tables.ct_with(CtTable::Established, &key, |entry| {
        consult(entry, config, now, &sight)
    });
    found.is_some_and(|found| matches!(found & FOUND, FOUND_APPROVED | FOUND_PROMOTE))
}
