//! The facts of Calico's model that are about packets and flows rather than policies (12 and 20), on the engine that
//! the programs run.

use anyhow::Result;
use calico_azure_ebpf::abi::Reason;
use calico_azure_ebpf::packet::SlicePacket;
use calico_azure_ebpf::verdict::workload;
use calico_azure_tests::harness::packet::{ACK, Frame, SYN};
use calico_azure_tests::harness::scenario::{A, B, address, policy, rule, store};
use calico_azure_tests::harness::settings;
use calico_azure_userspace::dataplane::host::HostTables;
use calico_azure_userspace::dataplane::{Image, plan};
use calico_azure_userspace::model::{Action, Resource};
use calico_azure_userspace::policy::Compiler;

const TCP: u8 = 6;
const UDP: u8 = 17;

struct Node {
    compiler: Compiler,
    tables: HostTables,
}

impl Node {
    fn new(policies: impl IntoIterator<Item = Resource>) -> Result<Self> {
        let mut node = Self {
            compiler: Compiler::default(),
            tables: HostTables::new(Image::default()),
        };
        node.apply(policies)?;
        Ok(node)
    }

    fn apply(&mut self, policies: impl IntoIterator<Item = Resource>) -> Result<()> {
        let desired = self.compiler.compile(&store(policies))?.desired;
        let plan = plan(&self.tables.image, &desired, settings())?;
        for op in plan.prepare.iter().chain(&plan.flip).chain(&plan.settle) {
            self.tables.image.follow(op);
        }
        Ok(())
    }

    fn sends(&self, ifindex: u32, bytes: &[u8]) -> Reason {
        workload::from_workload(&at(bytes, ifindex), &self.tables).reason
    }

    fn gets(&self, ifindex: u32, bytes: &[u8]) -> Reason {
        workload::to_workload(&at(bytes, ifindex), &self.tables).reason
    }
}

fn at(bytes: &[u8], ifindex: u32) -> SlicePacket<'_> {
    SlicePacket {
        bytes,
        ifindex,
        ingress_ifindex: 1,
        mark: Default::default(),
    }
}

/// `b` accepts TCP port 80, if anything.
fn web(open: bool) -> [Resource; 1] {
    let rules = if open {
        vec![rule(Action::Allow, Some(TCP), &[(80, 80)])]
    } else {
        Vec::new()
    };
    [policy("b", "b", Some(rules), None)]
}

#[test]
fn fact_12_a_change_of_policy_is_asked_again_with_the_next_packet_of_an_established_flow() -> Result<()> {
    for v6 in [false, true] {
        let mut node = Node::new(web(true))?;
        let syn = Frame::new(address("remote", v6), address("b", v6), TCP, 2000, 80);
        let ack = syn.clone().flags(ACK).bytes();
        assert_eq!(node.gets(B, &syn.bytes()), Reason::PolicyAllow);
        assert_eq!(
            node.sends(B, &syn.reply().flags(SYN | ACK).bytes()),
            Reason::Established
        );
        assert_eq!(node.gets(B, &ack), Reason::Established);
        node.apply(web(false))?;
        assert_eq!(node.gets(B, &ack), Reason::PolicyDeny);
        assert_eq!(node.gets(B, &syn.bytes()), Reason::PolicyDeny);
        assert_eq!(node.sends(B, &syn.reply().flags(ACK).bytes()), Reason::PolicyDeny);
    }
    Ok(())
}

#[test]
fn fact_20_arp_neighbour_discovery_and_dhcp_pass_a_pod_that_may_do_nothing() -> Result<()> {
    let nothing = || Some(Vec::new());
    let node = Node::new([policy("a", "a", nothing(), nothing())])?;
    let mut arp = Frame::new(address("a", false), address("b", false), TCP, 1, 1).bytes();
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(node.sends(A, &arp), Reason::AlwaysAllowed);
    assert_eq!(node.gets(A, &arp), Reason::AlwaysAllowed);
    // Neighbour and router solicitation, neighbour advertisement, MLD reports.
    for (src, dst, kind, hop_limit) in [
        ("::", "ff02::1:ff00:2", 135, 255),
        ("fe80::1", "ff02::2", 133, 255),
        ("fe80::1", "fe80::2", 136, 255),
        ("fe80::1", "ff02::16", 143, 1),
    ] {
        let frame = Frame {
            hop_limit,
            ..Frame::new(src.parse()?, dst.parse()?, 58, 0, kind << 8)
        };
        assert_eq!(
            node.sends(A, &frame.bytes()),
            Reason::AlwaysAllowed,
            "type {kind}"
        );
    }
    let dhcp = Frame::new("0.0.0.0".parse()?, "255.255.255.255".parse()?, UDP, 68, 67);
    assert_eq!(node.sends(A, &dhcp.bytes()), Reason::AlwaysAllowed);
    Ok(())
}

#[test]
fn fact_20_later_fragments_follow_their_first() -> Result<()> {
    let node = Node::new(web(true))?;
    for v6 in [false, true] {
        let part = |id, offset, more, dport| {
            let whole = Frame::new(address("remote", v6), address("b", v6), TCP, 3000, dport);
            let part = Frame {
                fragment: Some((id, offset, more)),
                payload: if offset == 0 { 44 } else { 64 },
                ..whole
            };
            node.gets(B, &part.bytes())
        };
        assert_eq!(part(1, 8, false, 80), Reason::UnknownFragment, "before its first");
        assert_eq!(part(1, 0, true, 80), Reason::PolicyAllow);
        assert_eq!(part(1, 8, false, 80), Reason::Established);
        assert_eq!(part(2, 0, true, 81), Reason::PolicyDeny);
        assert_eq!(part(2, 8, false, 81), Reason::PolicyDeny);
    }
    Ok(())
}
