//! The tables that verdicts read, as traits: eBPF maps in the kernel, ordinary maps on the host.

use super::Outcome;
use crate::abi::{Config, CtValue, Denied, FragValue, Hook, PolicyKey, PortKey};
use crate::packet::{Family, Network, Packet, Transport, V4, V6};

/// Which of a family's two conntrack tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtTable {
    /// Flows of which both sides were seen. A SYN flood never gets here.
    Established,
    /// Everything else; the least recently used goes first.
    HalfOpen,
}

/// Everything that the programs need.
pub trait AllTables: Tables + FamilyTables<V4> + FamilyTables<V6> {}

impl<T: Tables + FamilyTables<V4> + FamilyTables<V6>> AllTables for T {}

/// Tables without a family.
pub trait Tables {
    /// The configuration, `None` before the first apply.
    fn config(&self) -> Option<&Config>;
    /// As [`Packet::opaque`].
    #[must_use]
    fn opaque(value: u64) -> u64 {
        value
    }
    /// As [`Packet::opaque`].
    #[must_use]
    fn opaque_outcome(outcome: Outcome) -> Outcome {
        outcome
    }
    /// Monotonic nanoseconds, in steps of a few milliseconds.
    fn now(&self) -> u64;
    /// The endpoint's slot word for its egress (`abi::LEG_OUT`) or ingress (`abi::LEG_IN`), read once.
    fn endpoint(&self, ifindex: u32, leg: u32) -> Option<u64>;
    /// Slot word of a stage (`abi::host_set`) of the interface's host endpoint, read once.
    fn host(&self, ifindex: u32, stage: usize) -> Option<u64>;
    /// Whether the interface is in `LINKS`.
    fn link(&self, ifindex: u32) -> bool;

    /// Whether what is behind an interface, 0 for none, is yet to be looked at by an agent.
    #[inline(always)]
    fn is_open(&self, ifindex: u32) -> bool {
        ifindex != 0 && !self.link(ifindex)
    }
    /// The endpoint's mark word, read once.
    fn endpoint_mark(&self, ifindex: u32) -> Option<u64>;
    /// The mark word of a mark, read once.
    fn marked(&self, mark: u32) -> Option<u64>;
    /// Table word of `(policy set, peer class)`.
    fn policy(&self, key: &PolicyKey) -> Option<u64>;
    /// Decision word.
    fn port(&self, key: &PortKey) -> Option<u64>;
    /// The rule that untracked policy denied the same by, on this processor and in this epoch, and whether a `Log` rule matched.
    fn denied(&self, asked: &Denied) -> Option<(u32, bool)>;
    /// Counts one more of what untracked policy denied, unless it has to be recorded, too: then it does nothing and says so.
    fn counts_denied<P: Packet>(&self, packet: &P, config: &Config) -> bool;
    /// Remembers what untracked policy denied.
    fn set_denied(&self, asked: &Denied, rule: u32, log: bool);
    /// Counts, and records an event where one is due, for a packet whose addresses could not be read or matter not.
    fn record_bare<P: Packet>(&self, hook: Hook, packet: &P, outcome: Outcome);
}

/// Tables of one address family.
pub trait FamilyTables<F: Family> {
    /// In which slots the pod behind the interface may send from the address: bit 0 even epochs, bit 1 odd ones.
    fn owns(&self, ifindex: u32, addr: F::Addr) -> u32;
    /// In which slots kube-proxy translates what is sent there, as [`Self::owns`].
    fn service(&self, addr: F::Addr, port: u16, protocol: u8) -> u32;
    /// Slot word of the address itself.
    fn class(&self, addr: F::Addr) -> Option<u64>;
    /// Peer class, in a slot, of the longest prefix that covers the address; 0 for none.
    fn cidr(&self, addr: F::Addr, slot: usize) -> u32;
    /// `abi::route` bits of the longest prefix that covers the address.
    fn route(&self, addr: F::Addr) -> u32;
    /// What is at the other end of a packet's flow: [`super::peer::peer`].
    fn peer<P: Packet>(&self, packet: &P, peer: F::Addr, asked: u64) -> u64;
    /// Runs `f` on an entry in place.
    fn ct_with<R>(&self, table: CtTable, key: &F::CtKey, f: impl FnOnce(&mut CtValue) -> R) -> Option<R>;
    /// Inserts or replaces an entry; false if the table refuses.
    fn ct_insert(&self, table: CtTable, key: &F::CtKey, value: &CtValue) -> bool;
    /// Removes an entry if it is there.
    fn ct_remove(&self, table: CtTable, key: &F::CtKey);
    /// What the first fragment of a datagram said.
    fn frag(&self, key: &F::FragKey) -> Option<FragValue>;
    /// Remembers it.
    fn set_frag(&self, key: &F::FragKey, value: &FragValue);
    /// Counts, and records an event where one is due.
    fn record<P: Packet>(
        &self,
        hook: Hook,
        packet: &P,
        network: &Network<F>,
        transport: &Transport,
        outcome: Outcome,
    );
}
