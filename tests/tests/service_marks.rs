//! Service traffic on the loaded programs: the mark that a packet gets, what each program says of it, and the counters.

use anyhow::Result;
use calico_azure_ebpf::abi::{DEFAULT_MARK_MASK, Hook, Pod as _, Reason, program};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::packet::{ACK, Frame, SYN};
use calico_azure_tests::harness::scenario::{A, B, Bench, FABRIC, address, policy, rule, store};
use calico_azure_userspace::dataplane::{MapIo as _, Table};
use calico_azure_userspace::model::{Action, Resource, Service, ServicePort, TargetPort};
use calico_azure_userspace::policy::Store;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// kube-proxy's own bit, which must survive.
const MASQUERADE: u32 = 0x4000;

/// `a` may reach port 80 only, and port 80 of `b` is what the service leads to.
fn cluster() -> Store {
    let port = |port, protocol| ServicePort {
        name: None,
        protocol,
        port,
        target: TargetPort::Number(80),
        node_port: None,
    };
    let service = Resource::Service(Service {
        namespace: "ns".into(),
        name: "web".into(),
        selector: None,
        cluster_ips: [false, true].map(vip).into(),
        external_ips: Vec::new(),
        ports: vec![port(443, TCP), port(53, UDP)],
    });
    let port_80 = Some(vec![rule(Action::Allow, None, &[])]);
    let egress = Some(vec![rule(Action::Allow, Some(TCP), &[(80, 80)])]);
    store([
        policy("a", "a", None, egress),
        policy("b", "b", port_80, None),
        service,
    ])
}

fn vip(v6: bool) -> std::net::IpAddr {
    let text = if v6 { "fd00:10:96::1" } else { "10.96.0.1" };
    text.parse().unwrap_or_else(|_| unreachable!("an address"))
}

fn bench(name: &str) -> Result<Bench> {
    let mut bench = Bench::new(name, &cluster())?;
    bench
        .harness
        .configure(|config| config.mark_mask = DEFAULT_MARK_MASK)?;
    Ok(bench)
}

/// The mark of a pod's service traffic.
fn mark(bench: &Bench, ifindex: u32) -> u32 {
    bench.output.desired.endpoints[&ifindex].mark << DEFAULT_MARK_MASK.trailing_zeros()
}

fn to_service(v6: bool, protocol: u8, dport: u16) -> Frame {
    Frame::new(address("a", v6), vip(v6), protocol, 1000, dport)
}

fn translated(v6: bool, to: &str, dport: u16) -> Frame {
    Frame::new(address("a", v6), address(to, v6), TCP, 1000, dport)
}

fn to_fabric() -> At {
    At {
        program: program::TO_FABRIC,
        ifindex: FABRIC,
        ingress_ifindex: A,
    }
}

#[test]
fn what_goes_to_a_service_is_marked_and_its_answer_comes_in() -> Result<()> {
    let mut bench = bench("svcmark")?;
    let mark = mark(&bench, A);
    assert_ne!(mark, 0);
    assert_ne!(mark, self::mark(&bench, B), "each pod has its own");
    let pass = [(Hook::FromWorkload, Reason::Service, A)];
    for v6 in [false, true] {
        for (protocol, port) in [(TCP, 443), (UDP, 53)] {
            let frame = to_service(v6, protocol, port);
            let at = At::from_workload(A);
            bench.expect_marked(at, &frame.bytes(), (MASQUERADE, MASQUERADE | mark), &pass)?;
            // kube-proxy has put the service's address back.
            let answer = frame.reply().flags(SYN | ACK).bytes();
            let answered = [(Hook::ToWorkload, Reason::Established, A)];
            bench.expect_marked(At::to_workload(A), &answer, (0, 0), &answered)?;
            // And every later packet is marked, too.
            bench.expect_marked(at, &frame.flags(ACK).bytes(), (0, mark), &pass)?;
        }
        // Not a port of the service: the address as such is judged.
        for (protocol, port) in [(TCP, 444), (UDP, 443)] {
            let other = to_service(v6, protocol, port).bytes();
            let denied = [(Hook::FromWorkload, Reason::PolicyDeny, A)];
            bench.expect_marked(At::from_workload(A), &other, (0, 0), &denied)?;
        }
    }
    Ok(())
}

#[test]
fn the_senders_egress_policy_is_asked_where_the_packet_leaves() -> Result<()> {
    let mut bench = bench("svcleave")?;
    let mark = mark(&bench, A);
    for v6 in [false, true] {
        let at = At::to_workload(B);
        let allowed = translated(v6, "b", 80);
        // Both policies have a say, and the mark is gone.
        bench.expect_marked(
            at,
            &allowed.bytes(),
            (MASQUERADE | mark, MASQUERADE),
            &[
                (Hook::Service, Reason::PolicyAllow, A),
                (Hook::ToWorkload, Reason::PolicyAllow, B),
            ],
        )?;
        bench.expect_marked(
            at,
            &allowed.clone().flags(ACK).bytes(),
            (mark, 0),
            &[
                (Hook::Service, Reason::Established, A),
                (Hook::ToWorkload, Reason::Established, B),
            ],
        )?;
        let denied = translated(v6, "b", 81).bytes();
        let drop = [(Hook::Service, Reason::PolicyDeny, A)];
        bench.expect_marked(at, &denied, (mark, mark), &drop)?;
        for (port, seen) in [
            (
                80,
                &[
                    (Hook::Service, Reason::PolicyAllow, A),
                    (Hook::ToFabric, Reason::FabricPass, FABRIC),
                ][..],
            ),
            (81, &drop),
        ] {
            let packet = translated(v6, "remote", port).bytes();
            let after = if port == 80 { 0 } else { mark };
            bench.expect_marked(to_fabric(), &packet, (mark, after), seen)?;
        }
        // Masqueraded to the node's address, it is still a's.
        let masked = Frame::new(address("node", v6), address("remote", v6), TCP, 5000, 81).bytes();
        bench.expect_marked(to_fabric(), &masked, (mark, mark), &drop)?;
    }
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_a_service_whatever_policy_says() -> Result<()> {
    let nothing = || Some(Vec::new());
    let mut bench = bench("svchair")?;
    bench.apply(&store([policy("a", "a", nothing(), nothing())]))?;
    bench
        .harness
        .configure(|config| config.mark_mask = DEFAULT_MARK_MASK)?;
    let mark = mark(&bench, A);
    for v6 in [false, true] {
        // kube-proxy hides the pod behind the node, or it would see itself as the client.
        let own = Frame::new(address("node", v6), address("a", v6), TCP, 5000, 80);
        let hairpin = [(Hook::Service, Reason::Hairpin, A)];
        bench.expect_marked(At::to_workload(A), &own.bytes(), (mark, 0), &hairpin)?;
        let answer = own.reply().flags(SYN | ACK).bytes();
        let answered = [(Hook::FromWorkload, Reason::Established, A)];
        bench.expect_marked(At::from_workload(A), &answer, (0, 0), &answered)?;
    }
    Ok(())
}

#[test]
fn a_mark_that_is_nobodys_fails_closed() -> Result<()> {
    let mut bench = bench("svcnone")?;
    let mark = mark(&bench, A);
    let packet = translated(false, "b", 80).bytes();
    let unknown = 0x0ffe_0000;
    for at in [At::to_workload(B), to_fabric()] {
        let drop = [(Hook::Service, Reason::NoEndpoint, 0)];
        bench.expect_marked(at, &packet, (unknown, unknown), &drop)?;
    }
    // Two words that disagree about who has the mark.
    let key = bench.output.desired.endpoints[&A].mark;
    let io = bench.harness.dataplane.io();
    io.put(Table::Marks, key.bytes(), u64::from(key + 1).bytes())?;
    let drop = [(Hook::Service, Reason::NoEndpoint, 0)];
    bench.expect_marked(At::to_workload(B), &packet, (mark, mark), &drop)
}

#[test]
fn a_change_of_the_senders_policy_cuts_its_flows_through_services() -> Result<()> {
    let mut bench = bench("svccut")?;
    let mark = mark(&bench, A);
    let flow = translated(false, "b", 80);
    let at = At::to_workload(B);
    let to_b = |reason| [(Hook::Service, reason, A), (Hook::ToWorkload, reason, B)];
    bench.expect_marked(at, &flow.bytes(), (mark, 0), &to_b(Reason::PolicyAllow))?;
    bench.apply(&store([policy("a", "a", None, Some(Vec::new()))]))?;
    bench
        .harness
        .configure(|config| config.mark_mask = DEFAULT_MARK_MASK)?;
    let ack = flow.flags(ACK).bytes();
    let cut = [(Hook::Service, Reason::PolicyDeny, A)];
    bench.expect_marked(at, &ack, (mark, mark), &cut)
}

#[test]
fn what_nothing_translated_is_judged_each_time_and_stays_marked_at_the_pod() -> Result<()> {
    let mut bench = bench("svcplain")?;
    let mark = mark(&bench, A);
    let frame = to_service(false, TCP, 443);
    let pass = [(Hook::FromWorkload, Reason::Service, A)];
    bench.expect_marked(At::from_workload(A), &frame.bytes(), (0, mark), &pass)?;
    // No kube-proxy: it leaves with the service's address, which a's policy does not allow.
    let drop = [(Hook::Service, Reason::PolicyDeny, A)];
    for _ in 0..2 {
        bench.expect_marked(to_fabric(), &frame.bytes(), (mark, mark), &drop)?;
    }
    bench.expect_marked(At::from_workload(A), &frame.flags(ACK).bytes(), (0, mark), &pass)?;
    Ok(())
}
