//! What a pod sent to a service, where it leaves: the sender's egress policy must allow what it has become.

use calico_azure_ebpf::abi::{DEFAULT_MARK_MASK, MARK_HOST, Reason};
use calico_azure_ebpf::verdict::Outcome;

use super::{At, First, Hook, Seen, Strict, flow, world};

/// The mark that a packet must have afterwards.
pub(super) fn left_with(at: At, outcome: Outcome) -> u32 {
    match at.hook {
        Hook::From if outcome.reason == Reason::Service => at.mark | world::mark_of(at.ifindex),
        Hook::HostIn if outcome.reason == Reason::Service => {
            at.mark | MARK_HOST << DEFAULT_MARK_MASK.trailing_zeros()
        }
        Hook::Service | Hook::ToHost if outcome.reason.passes() => at.mark & !DEFAULT_MARK_MASK,
        _ => at.mark,
    }
}

impl Seen<'_> {
    pub(super) fn marked(&mut self, at: At, packet: &Strict, outcome: Outcome) -> Result<(), &'static str> {
        let sender = world::sender_of(at.mark).ok_or("the mark is nobody's")?;
        let name = if sender == super::A { "a" } else { "b" };
        let hairpin = at.hook == Hook::Service && at.ifindex == sender;
        let first = self.whole(at, packet)?;
        if let Some(First {
            protocol, transport, ..
        }) = first
            && super::is_tunnel(protocol, transport)
        {
            return Err("a pod's tunnel");
        }
        if hairpin {
            if outcome.reason != Reason::Hairpin {
                return Err("no reason to pass here");
            }
            if let Some(First {
                protocol, transport, ..
            }) = first
            {
                self.flows.insert((packet.dst, flow(packet, protocol, transport)));
            }
            return Ok(());
        }
        let Some(First {
            protocol, transport, ..
        }) = first
        else {
            let allowed =
                outcome.reason == Reason::PolicyAllow && self.allowed_blind(name, Hook::From, packet);
            return allowed.then_some(()).ok_or("a fragment of nothing that was seen");
        };
        let flow = (packet.src, flow(packet, protocol, transport));
        let known = self.flows.contains(&flow);
        match outcome.reason {
            Reason::Established if known && !(transport.syn && packet.transport.is_ok()) => {}
            Reason::PolicyAllow if self.is_host(packet.dst) => {
                // `defaultEndpointToHostAction` is what it is by default.
                return Err("a pod reaches its host");
            }
            Reason::PolicyAllow if self.allowed(name, Hook::From, packet, protocol, transport, known) => {}
            Reason::Established => return Err("nothing established it"),
            Reason::PolicyAllow => return Err("policy does not allow it"),
            _ => return Err("no reason to pass here"),
        }
        // What nothing translated is judged each time.
        if !self.deferred.contains(&flow) {
            self.flows.insert(flow);
        }
        Ok(())
    }
}
