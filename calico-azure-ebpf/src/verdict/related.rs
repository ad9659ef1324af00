//! ICMP errors: which flow one is about, by the header that it quotes.
//!
//! | error | verdict |
//! |---|---|
//! | the host itself sends it (a router, as pods see it) | `FromHost` |
//! | in fragments; about a packet that its receiver did not send; from a pod, about one that the pod did not get | `UnrelatedError` |
//! | at a host endpoint: from any router, if it is about what its receiver sent | as below |
//! | what it quotes cannot be read | drop with that reason |
//! | the pod's leg of the quoted flow is approved, or policy approves it again now | `Related` |
//! | policy no longer allows that flow | `PolicyDeny` |
//! | no flow is known | the pod's policy about the ICMP packet itself; no flow is entered |
//!
//! Calico drops the last kind. Here policy is asked, so that a rule about such a type means what it says and the kernel
//! says the same of the packet as the tables and the rules do. It never belongs to a flow of its own.

use super::datagram::{Known, recall};
use super::workload::code;
use super::{FamilyTables, Tables};
use crate::abi::{LEG_OUT, Reason};
use crate::packet::{Family, Network, Packet, fragment};

/// The packet that an error is about.
pub(super) struct Quoted<F: Family> {
    /// The other end of its flow.
    pub(super) peer: F::Addr,
    pub(super) known: Known,
}

/// What an error at a pod's interface is about. `leg` is the error's own.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn quote<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    error: &Network<F>,
    leg: u32,
    quoted: &mut Quoted<F>,
) -> u32 {
    code(find(packet, tables, error, leg).map(|found| *quoted = found))
}

/// As [`quote`], at a host endpoint: the error may come from any router on the way. Its source becomes that of the
/// far side, if it comes in.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn quote_at_host<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    error: &mut Network<F>,
    leg: u32,
    quoted: &mut Quoted<F>,
) -> u32 {
    code(read(packet, tables, error, leg).map(|(inner, known)| {
        if leg == LEG_OUT {
            error.src = inner.dst;
        }
        quoted.peer = if leg == LEG_OUT { inner.src } else { inner.dst };
        quoted.known = known;
    }))
}

#[inline(always)]
fn find<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    error: &Network<F>,
    leg: u32,
) -> Result<Quoted<F>, Reason> {
    let (inner, known) = read(packet, tables, error, leg)?;
    if leg == LEG_OUT && inner.dst != error.src {
        return Err(Reason::UnrelatedError);
    }
    let peer = if leg == LEG_OUT { inner.src } else { inner.dst };
    Ok(Quoted { peer, known })
}

/// What an error quotes.
#[inline(always)]
fn read<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    error: &Network<F>,
    leg: u32,
) -> Result<(Network<F>, Known), Reason> {
    // Errors are smaller than any link's MTU.
    if error.fragment != fragment::NO {
        return Err(Reason::UnrelatedError);
    }
    let inner = error.quoted(packet)?;
    if inner.src != error.dst {
        return Err(Reason::UnrelatedError);
    }
    // It went the other way.
    let known = if inner.fragment == fragment::LATER {
        recall(tables, &inner, packet.ifindex(), 1 - leg).known()
    } else {
        Known {
            transport: inner.quoted_transport(packet)?,
            protocol: inner.protocol,
            blind: false,
        }
    };
    Ok((inner, known))
}
