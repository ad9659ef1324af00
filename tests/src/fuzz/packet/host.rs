//! The interface with a host endpoint: what passes there, what XDP drops early, and what is answered with a reset.

use std::net::IpAddr;

use calico_azure_ebpf::abi::Reason;
use calico_azure_ebpf::packet::{SlicePacket, V4, V6, ethertype};
use calico_azure_ebpf::verdict::reset::reset;
use calico_azure_ebpf::verdict::{Outcome, fabric};
use calico_azure_userspace::dataplane::host::HostTables;
use calico_azure_userspace::policy::reference::{HostVerdict, Stage};
use calico_azure_userspace::policy::{Direction, Probe, Traffic};
use etherparse::{PacketHeaders, TransportHeader};

use super::{
    At, First, Fragment, Hook, Reading, Seen, Strict, Transport, counts, expect, flow, is_link_control, world,
};
use crate::harness::scenario::{FABRIC, TUNNEL, address};

impl Seen<'_> {
    /// Whether an address is the node's own.
    pub(super) fn is_host(&self, address: IpAddr) -> bool {
        let mut nodes = self.store.nodes().filter(|node| node.name == "n1");
        nodes.any(|node| node.internal_ips.contains(&address))
    }

    /// Of the host itself; else it passes through.
    fn is_local(&self, at: At, packet: &Strict) -> bool {
        if at.hook == Hook::HostOut {
            return at.ingress_ifindex == 0;
        }
        let everybody = match packet.dst {
            IpAddr::V4(dst) => dst.octets()[0] >= 224,
            IpAddr::V6(dst) => dst.is_multicast(),
        };
        self.is_host(packet.dst) || everybody
    }

    fn ask(&self, at: At, packet: &Strict, protocol: u8, transport: Transport) -> Option<HostVerdict> {
        let (direction, own, peer) = match at.hook {
            Hook::HostOut => (Direction::Egress, packet.src, packet.dst),
            _ => (Direction::Ingress, packet.dst, packet.src),
        };
        let traffic = if self.is_local(at, packet) {
            Traffic::Local
        } else {
            Traffic::Forwarded
        };
        let probe = Probe {
            own,
            peer,
            protocol,
            sport: transport.sport,
            dport: transport.dport,
        };
        let host = self.oracle.host_endpoint("n1", Some("eth0"), &[])?;
        Some(self.oracle.host(host, direction, traffic, &probe, &probe))
    }

    fn allows(&self, at: At, packet: &Strict, protocol: u8, transport: Transport) -> bool {
        let verdict = self.ask(at, packet, protocol, transport);
        verdict.is_some_and(|verdict| verdict.verdict.allow)
    }

    /// What the host cannot do without: DHCP, Azure's own addresses, the tunnel between nodes.
    fn is_vital(packet: &Strict, protocol: u8, transport: Transport, out: bool) -> bool {
        let peer = if out { packet.dst } else { packet.src };
        let ports = (transport.sport, transport.dport);
        let v4 = packet.src.is_ipv4();
        let dhcp = if v4 {
            [(67, 68), (68, 67)]
        } else {
            [(546, 547), (547, 546)]
        };
        let azure = ["wireserver", "imds"].map(|name| address(name, false));
        let others = [false, true].map(|v6| address("other-node", v6));
        protocol == 17 && dhcp.contains(&ports)
            || azure.contains(&packet.src)
            || azure.contains(&packet.dst)
            || protocol == 17 && transport.dport == TUNNEL && others.contains(&peer)
    }

    pub(super) fn at_host(&mut self, at: At, packet: &Strict, outcome: Outcome) -> Result<(), &'static str> {
        let out = at.hook == Hook::HostOut;
        let own = out && at.ingress_ifindex == 0;
        if outcome.reason == Reason::FabricPass {
            let link = is_link_control(packet) && (!out || own);
            return link.then_some(()).ok_or("nobody asked the host endpoint");
        }
        if !out && self.ours(packet.src) {
            return Err("one of our own addresses comes from outside");
        }
        if out && !own && !self.ours(packet.src) {
            return Err("a source leaves that the fabric does not know");
        }
        if out && !own && matches!(packet.protocol, 4 | 47) {
            return Err("a tunnel leaves that the fabric does not carry");
        }
        let local = self.is_local(at, packet);
        let Some(First {
            protocol, transport, ..
        }) = self.whole(at, packet)?
        else {
            return match outcome.reason {
                Reason::AlwaysAllowed
                    if local && Self::is_vital(packet, packet.protocol, Transport::default(), out) =>
                {
                    Ok(())
                }
                Reason::PolicyAllow if self.allows_blind(at, packet) => Ok(()),
                _ => Err("a fragment of nothing that was seen"),
            };
        };
        if outcome.reason == Reason::AlwaysAllowed {
            let vital = local && Self::is_vital(packet, protocol, transport, out);
            return vital.then_some(()).ok_or("the host can do without");
        }
        let verdict = self
            .ask(at, packet, protocol, transport)
            .ok_or("no host endpoint")?;
        let untracked = verdict.stage == Stage::Untracked;
        if packet.is_error() && !(untracked && outcome.reason == Reason::PolicyAllow) {
            return self.error_at_host(at, packet, &verdict, outcome);
        }
        let far = if out { packet.dst } else { packet.src };
        let flow = (far, flow(packet, protocol, transport));
        // The answer to what a pod sent to a service is known as well.
        let known = self.flows.contains(&flow) || self.deferred.contains(&flow);
        match outcome.reason {
            // Untracked policy remembers nothing.
            Reason::PolicyAllow if verdict.verdict.allow && untracked => return Ok(()),
            Reason::PolicyAllow if verdict.verdict.allow => {}
            Reason::Established if untracked && !verdict.verdict.allow && !local => {
                return Err("untracked policy denies it");
            }
            Reason::Established if known && !(transport.syn && packet.transport.is_ok()) => {}
            // What it is translated to is asked about where that leaves; what comes before translation has had its say.
            Reason::Service if !out && world::is_service(packet.dst, protocol, transport.dport) => {
                let before = matches!(verdict.stage, Stage::Untracked | Stage::PreDnat);
                if before && !verdict.verdict.allow {
                    return Err("policy before translation denies it");
                }
                self.deferred.insert(flow);
                return Ok(());
            }
            Reason::Service => return Err("nobody serves there"),
            Reason::PolicyAllow => return Err("policy does not allow it"),
            Reason::Established => return Err("nothing established it"),
            _ => return Err("no reason to pass here"),
        }
        self.flows.insert(flow);
        Ok(())
    }

    /// Any router may send one, about what its receiver sent by this interface.
    fn error_at_host(
        &self,
        at: At,
        packet: &Strict,
        verdict: &HostVerdict,
        outcome: Outcome,
    ) -> Result<(), &'static str> {
        if packet.fragment != Fragment::Whole {
            return Err("an error in fragments");
        }
        let about = packet.about.ok_or("an error about what cannot be read")?;
        if about.src != packet.dst {
            return Err("an error about what its receiver did not send");
        }
        match outcome.reason {
            Reason::PolicyAllow if verdict.verdict.allow => Ok(()),
            Reason::PolicyAllow => Err("policy does not allow it"),
            Reason::Related => {
                let far = if at.hook == Hook::HostOut {
                    packet.dst
                } else {
                    about.dst
                };
                self.knows(at, far, &about)
            }
            _ => Err("no reason to pass here"),
        }
    }

    fn allows_blind(&self, at: At, packet: &Strict) -> bool {
        const SAMPLES: [u16; 14] = [
            0, 22, 23, 53, 80, 123, 443, 768, 2048, 5000, 7000, 8080, 9000, 65535,
        ];
        let mut ports = SAMPLES
            .iter()
            .flat_map(|sport| SAMPLES.map(|dport| Transport::of(*sport, dport)));
        ports.all(|transport| self.allows(at, packet, packet.protocol, transport))
    }

    /// A new flow that policy allows must not be refused.
    pub(super) fn refused_at_host(&self, at: At, packet: &Strict, outcome: Outcome, bytes: &[u8]) {
        let (Ok(transport), Fragment::Whole, Reason::PolicyDeny) =
            (packet.transport, packet.fragment, outcome.reason)
        else {
            return;
        };
        if packet.is_error() {
            return;
        }
        let allowed = self.allows(at, packet, packet.protocol, transport);
        assert!(!allowed, "policy allows this at {at:?}: {packet:?}\n{bytes:02x?}");
    }

    /// XDP drops what untracked policy denies, and nothing that the next program would not drop.
    pub(super) fn early(
        &self,
        packet: &SlicePacket<'_>,
        tables: &HostTables,
        reading: &Reading,
        outcome: Outcome,
    ) {
        let bytes = packet.bytes;
        if outcome.reason.passes() {
            let fine = expect(outcome, Reason::FabricPass).is_ok();
            assert!(fine, "{outcome:?} of {reading:?}\n{bytes:02x?}");
            return;
        }
        assert_eq!(outcome.reason, Reason::PolicyDeny, "{reading:?}\n{bytes:02x?}");
        let Reading::Ip(strict) = reading else {
            // Too broken to be judged: the next program says why.
            panic!("{reading:?} was judged\n{bytes:02x?}");
        };
        let at = At {
            hook: Hook::HostIn,
            ifindex: FABRIC,
            ingress_ifindex: FABRIC,
            mark: 0,
        };
        let transport = strict
            .transport
            .unwrap_or_else(|what| panic!("{what} was judged\n{bytes:02x?}"));
        let verdict = self.ask(at, strict, strict.protocol, transport);
        let denied = verdict
            .as_ref()
            .is_some_and(|verdict| verdict.stage == Stage::Untracked && !verdict.verdict.allow);
        assert!(denied, "{verdict:?} of {strict:?}\n{bytes:02x?}");
        let next = fabric::from_fabric(packet, tables);
        assert!(!next.reason.passes(), "{next:?} of {strict:?}\n{bytes:02x?}");
    }

    /// Only a TCP packet in the middle of a connection that passed here is answered, with the number that its sender waits for.
    pub(super) fn reset(&self, packet: &SlicePacket<'_>, tables: &HostTables, reading: &Reading) {
        let word = |address: u32| IpAddr::from(address.to_ne_bytes());
        let words = |address: [u32; 4]| {
            let mut bytes = [0; 16];
            for (place, word) in bytes.chunks_exact_mut(4).zip(address) {
                place.copy_from_slice(&word.to_ne_bytes());
            }
            IpAddr::from(bytes)
        };
        let four = reset::<V4, _, _>(packet, tables, ethertype::IPV4);
        let four = four.map(|reset| (word(reset.src), word(reset.dst), reset.ports, reset.seq));
        let six = reset::<V6, _, _>(packet, tables, ethertype::IPV6);
        let six = six.map(|reset| (words(reset.src), words(reset.dst), reset.ports, reset.seq));
        let bytes = packet.bytes;
        counts::count(Hook::Reset, four.or(six).is_some());
        let Some((src, dst, ports, seq)) = four.or(six) else {
            return;
        };
        let Reading::Ip(strict) = reading else {
            panic!("{reading:?} is answered\n{bytes:02x?}");
        };
        let headers = PacketHeaders::from_ethernet_slice(bytes).ok();
        let Some(TransportHeader::Tcp(tcp)) = headers.and_then(|headers| headers.transport) else {
            panic!("no TCP is answered: {strict:?}\n{bytes:02x?}");
        };
        assert!(
            !tcp.syn && !tcp.rst && tcp.ack,
            "{tcp:?} is answered\n{bytes:02x?}"
        );
        assert_eq!(strict.fragment, Fragment::Whole, "{bytes:02x?}");
        assert_eq!((src, dst), (strict.dst, strict.src), "{bytes:02x?}");
        assert_eq!(ports, [tcp.destination_port, tcp.source_port], "{bytes:02x?}");
        assert_eq!(u32::from_be(seq), tcp.acknowledgment_number, "{bytes:02x?}");
        let transport = Transport::of(tcp.source_port, tcp.destination_port);
        let flow = flow(strict, 6, transport);
        let known = [strict.src, strict.dst].iter().any(|end| {
            let flow = (*end, flow);
            self.flows.contains(&flow) || self.deferred.contains(&flow)
        });
        assert!(known, "nothing that passed is answered: {strict:?}\n{bytes:02x?}");
    }
}
