//! Every reason happens: for each a packet that is judged so, by its counter and no other. What was seen to happen is noted as the
//! test runs, so that a reason without a packet of its own is a failure.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context as _, Result};
use calico_azure_ebpf::abi::{
    CONFIG_ALLOW_UNKNOWN, CONFIG_BRIDGED, CONFIG_DENY_IMDS, DEFAULT_MARK_MASK, Endpoint, Hook, Reason, word,
};
use calico_azure_ebpf::packet::SlicePacket;
use calico_azure_ebpf::verdict::{fabric, service, workload};
use calico_azure_tests::harness::hosts::{cluster, deny, host, of_host};
use calico_azure_tests::harness::packet::{ACK, Frame, SYN};
use calico_azure_tests::harness::scenario::{A, B, FABRIC, TUNNEL, address, policy, rule};
use calico_azure_tests::harness::settings;
use calico_azure_userspace::dataplane::host::HostTables;
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::dataplane::{Image, plan};
use calico_azure_userspace::model::{Action, HostRole, Resource, Service, ServicePort, TargetPort};
use calico_azure_userspace::policy::Compiler;

const TCP: u8 = 6;
const UDP: u8 = 17;
const IPIP: u8 = 4;
/// An interface with programs and without a pod.
const UNKNOWN: u32 = 99;
/// Where a packet came in that the host did not send.
const ELSEWHERE: u32 = 1;
const VIP: [u8; 4] = [10, 96, 0, 1];

fn image(flags: u32) -> Result<Image> {
    let port_80 = Some(vec![rule(Action::Allow, Some(TCP), &[(80, 80)])]);
    let service = Resource::Service(Service {
        namespace: "ns".into(),
        name: "web".into(),
        selector: None,
        cluster_ips: vec![VIP.into()],
        external_ips: Vec::new(),
        ports: vec![ServicePort {
            name: None,
            protocol: TCP,
            port: 443,
            target: TargetPort::Number(80),
            node_port: None,
        }],
    });
    let store = cluster([
        policy("b", "b", port_80, None),
        service,
        host("eth0"),
        of_host("early", HostRole::Untracked, deny(UDP, 7000), None),
    ]);
    let desired = Compiler::default().compile(&store)?.desired;
    let settings = Settings {
        flags,
        mark_mask: DEFAULT_MARK_MASK,
        tunnel_port: TUNNEL,
        ..settings()
    };
    let mut image = Image::default();
    let plan = plan(&Image::default(), &desired, settings)?;
    for op in plan.prepare.iter().chain(&plan.flip).chain(&plan.settle) {
        image.follow(op);
    }
    Ok(image)
}

/// Where a packet is.
#[derive(Clone, Copy, Debug)]
struct At {
    hook: Hook,
    ifindex: u32,
    came_in_by: u32,
    mark: u32,
}

fn at(hook: Hook, ifindex: u32) -> At {
    At {
        hook,
        ifindex,
        came_in_by: ELSEWHERE,
        mark: 0,
    }
}

/// What has been seen to happen.
#[derive(Default)]
struct Seen {
    pairs: BTreeSet<(Hook, Reason)>,
}

impl Seen {
    /// Judges the packet: the counter of its reason moves by one, and nothing else.
    #[track_caller]
    fn happens(&mut self, tables: &HostTables, at: At, bytes: &[u8], reason: Reason) {
        let packet = SlicePacket {
            bytes,
            ifindex: at.ifindex,
            ingress_ifindex: at.came_in_by,
            mark: at.mark.into(),
        };
        let mut expected: HashMap<(Hook, Reason), u64> = tables.counters.borrow().clone();
        let outcome = match at.hook {
            Hook::FromWorkload => workload::from_workload(&packet, tables),
            Hook::ToWorkload => workload::to_workload(&packet, tables),
            Hook::FromFabric => fabric::from_fabric(&packet, tables),
            Hook::ToFabric => fabric::to_fabric(&packet, tables),
            Hook::Service => service::leaving(&packet, tables),
            Hook::Untracked => fabric::untracked(&packet, tables),
        };
        *expected.entry((at.hook, reason)).or_default() += 1;
        assert_eq!(outcome.reason, reason, "{at:?}");
        assert_eq!(*tables.counters.borrow(), expected, "{at:?}");
        self.pairs.insert((at.hook, reason));
    }
}

fn tcp(from: &str, to: &str, port: u16) -> Frame {
    Frame::new(address(from, false), address(to, false), TCP, 1000, port)
}

fn later(frame: &Frame) -> Vec<u8> {
    Frame {
        fragment: Some((7, 5, false)),
        ..frame.clone()
    }
    .bytes()
}

/// At pods' interfaces, with the ordinary settings.
fn at_pods(seen: &mut Seen) -> Result<()> {
    let tables = HostTables::new(image(0)?);
    let (from_a, to_b) = (at(Hook::FromWorkload, A), at(Hook::ToWorkload, B));
    let web = tcp("remote", "b", 80);
    seen.happens(&tables, to_b, &web.bytes(), Reason::PolicyAllow);
    let answer = web.reply().flags(SYN | ACK);
    seen.happens(
        &tables,
        at(Hook::FromWorkload, B),
        &answer.bytes(),
        Reason::Established,
    );
    let unreachable = answer.error(address("remote", false), 3, 3, 28).bytes();
    seen.happens(&tables, to_b, &unreachable, Reason::Related);
    seen.happens(&tables, to_b, &tcp("remote", "b", 81).bytes(), Reason::PolicyDeny);
    seen.happens(&tables, to_b, &later(&web), Reason::UnknownFragment);
    let not_bs = tcp("a", "remote", 80).error(address("remote", false), 3, 3, 28);
    let not_bs = Frame {
        dst: address("b", false),
        ..not_bs
    };
    seen.happens(&tables, to_b, &not_bs.bytes(), Reason::UnrelatedError);
    let by_host = At {
        came_in_by: 0,
        ..to_b
    };
    seen.happens(&tables, by_host, &tcp("node", "b", 81).bytes(), Reason::FromHost);

    let mut arp = tcp("a", "b", 80).bytes();
    arp[12..14].copy_from_slice(&[8, 6]);
    seen.happens(&tables, from_a, &arp, Reason::AlwaysAllowed);
    arp[12..14].copy_from_slice(&[0x88, 0xcc]);
    seen.happens(&tables, from_a, &arp, Reason::UnsupportedEthertype);
    let sent = tcp("a", "remote", 80);
    seen.happens(&tables, from_a, &sent.bytes()[..40], Reason::Malformed);
    seen.happens(
        &tables,
        from_a,
        &tcp("b", "remote", 80).bytes(),
        Reason::SpoofedSource,
    );
    let many = Frame {
        extensions: vec![(60, 8); 12],
        ..Frame::new(address("a", true), address("remote", true), TCP, 1, 1)
    };
    seen.happens(&tables, from_a, &many.bytes(), Reason::ExtensionHeaders);
    let tagged = Frame {
        tags: vec![(0x88a8, 1), (0x8100, 2), (0x8100, 3)],
        ..sent.clone()
    };
    seen.happens(&tables, from_a, &tagged.bytes(), Reason::VlanTagged);
    let tunnel = Frame::new(address("a", false), address("remote", false), IPIP, 0, 0);
    seen.happens(&tables, from_a, &tunnel.bytes(), Reason::WorkloadTunnel);
    let options = Frame {
        ipv4_options: 1,
        ..sent.clone()
    };
    seen.happens(&tables, from_a, &options.bytes(), Reason::IpOptions);
    seen.happens(
        &tables,
        from_a,
        &tcp("a", "wireserver", 80).bytes(),
        Reason::Wireserver,
    );
    seen.happens(
        &tables,
        from_a,
        &tcp("a", "node", 80).bytes(),
        Reason::EndpointToHost,
    );
    let served = Frame {
        dst: VIP.into(),
        ..tcp("a", "b", 443)
    };
    seen.happens(&tables, from_a, &served.bytes(), Reason::Service);
    let endpoint = tables.image.endpoints.get(&A).context("a has no endpoint")?;
    let mark =
        word::mark_of(endpoint.mark, A).context("a has no mark")? << DEFAULT_MARK_MASK.trailing_zeros();
    let marked = At {
        mark,
        ..at(Hook::Service, A)
    };
    seen.happens(&tables, marked, &tcp("a", "a", 80).bytes(), Reason::Hairpin);
    seen.happens(
        &tables,
        at(Hook::FromWorkload, UNKNOWN),
        &sent.bytes(),
        Reason::NoEndpoint,
    );
    let open = HostTables::new(image(CONFIG_ALLOW_UNKNOWN)?);
    let reason = Reason::UnknownInterface;
    seen.happens(&open, at(Hook::FromWorkload, UNKNOWN), &sent.bytes(), reason);
    Ok(())
}

/// At the fabric interface; one with a host endpoint only for what is decided there.
fn at_the_fabric(seen: &mut Seen) -> Result<()> {
    let tables = HostTables::new(image(0)?);
    let (arrives, leaves) = (at(Hook::FromFabric, UNKNOWN), at(Hook::ToFabric, UNKNOWN));
    seen.happens(
        &tables,
        arrives,
        &tcp("remote", "b", 80).bytes(),
        Reason::FabricPass,
    );
    seen.happens(&tables, arrives, &tcp("a", "b", 80).bytes(), Reason::LocalSource);
    seen.happens(
        &tables,
        arrives,
        &tcp("remote", "unassigned", 80).bytes(),
        Reason::NoSuchWorkload,
    );
    let inner = tcp("outside", "b", 80).bytes();
    let mut carried = Frame {
        payload: 8 + inner.len(),
        ..Frame::new(
            address("other-node", false),
            address("node", false),
            UDP,
            5000,
            TUNNEL,
        )
    }
    .bytes();
    let start = carried.len() - inner.len();
    carried[start..].copy_from_slice(&inner);
    carried[start - 8..start].copy_from_slice(&[8, 0, 0, 0, 0, 0, 1, 0]);
    seen.happens(&tables, arrives, &carried, Reason::TunnelSource);
    seen.happens(
        &tables,
        leaves,
        &tcp("remote", "outside", 80).bytes(),
        Reason::UnknownSource,
    );
    let tunnel = Frame::new(address("a", false), address("outside", false), IPIP, 0, 0);
    seen.happens(&tables, leaves, &tunnel.bytes(), Reason::FabricUnsupported);
    let denied = Frame::new(address("outside", false), address("node", false), UDP, 1, 7000);
    seen.happens(
        &tables,
        at(Hook::Untracked, FABRIC),
        &denied.bytes(),
        Reason::PolicyDeny,
    );
    Ok(())
}

/// With other settings, and with tables as they must never be.
fn otherwise(seen: &mut Seen) -> Result<()> {
    let imds = HostTables::new(image(CONFIG_DENY_IMDS)?);
    let (from_a, to_b) = (at(Hook::FromWorkload, A), at(Hook::ToWorkload, B));
    seen.happens(&imds, from_a, &tcp("a", "imds", 80).bytes(), Reason::Imds);
    let bridged = HostTables::new(image(CONFIG_BRIDGED)?);
    seen.happens(
        &bridged,
        to_b,
        &tcp("remote", "a", 80).bytes(),
        Reason::ForeignDestination,
    );
    let nothing = HostTables::new(Image::default());
    let web = tcp("remote", "b", 80).bytes();
    seen.happens(&nothing, to_b, &web, Reason::NotConfigured);
    let full = HostTables::new(image(0)?);
    full.full.set(true);
    seen.happens(&full, to_b, &web, Reason::ConntrackFull);

    let mut unready = HostTables::new(image(0)?);
    let check = word::check24(UNKNOWN);
    let endpoint = Endpoint {
        egress: word::slots(0, 0, check),
        ingress: word::slots(0, 0, check),
        mark: word::mark(UNKNOWN, 1),
    };
    unready.image.endpoints.insert(UNKNOWN, endpoint);
    seen.happens(&unready, at(Hook::ToWorkload, UNKNOWN), &web, Reason::NotReady);
    let mut recycled = HostTables::new(image(0)?);
    for table in recycled.image.policy.values_mut() {
        *table ^= 1 << 40;
    }
    seen.happens(&recycled, to_b, &web, Reason::TableRace);
    let mut missing = HostTables::new(image(0)?);
    missing.image.policy.clear();
    seen.happens(&missing, to_b, &web, Reason::TableMissing);
    Ok(())
}

#[test]
fn every_reason_happens_and_moves_its_own_counter() -> Result<()> {
    let mut seen = Seen::default();
    at_pods(&mut seen)?;
    at_the_fabric(&mut seen)?;
    otherwise(&mut seen)?;
    let reasons: BTreeSet<Reason> = seen.pairs.iter().map(|(_, reason)| *reason).collect();
    let all: BTreeSet<Reason> = Reason::ALL.iter().copied().collect();
    let unseen: Vec<&Reason> = all.difference(&reasons).collect();
    assert!(unseen.is_empty(), "no packet causes {unseen:?}");
    let hooks: BTreeSet<Hook> = seen.pairs.iter().map(|(hook, _)| *hook).collect();
    assert_eq!(hooks, Hook::ALL.iter().copied().collect());
    Ok(())
}
