//! What comes in by a host endpoint's interface for a service, on the loaded programs: what is asked before translation, what
//! where the translated packet leaves, its mark, and exactly the counters that each packet moves.

use std::net::IpAddr;

use anyhow::Result;
use calico_azure_ebpf::abi::{DEFAULT_MARK_MASK, Hook, MARK_HOST, Reason, program};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::hosts::*;
use calico_azure_tests::harness::packet::{ACK, Frame, SYN};
use calico_azure_tests::harness::scenario::{A, B, Bench, FABRIC, address, policy, quiet, rule};
use calico_azure_userspace::model::{
    Action, Failsafe, FelixConfiguration, HostRole, Peer, Resource, Rule, Service, ServicePort, TargetPort,
};
use calico_azure_userspace::policy::Store;
use calico_azure_userspace::selector::Selector;

/// kube-proxy's own bit, which must survive.
const MASQUERADE: u32 = 0x4000;
const MARK: u32 = MARK_HOST << DEFAULT_MARK_MASK.trailing_zeros();
const NODE_PORT: u16 = 30_443;

fn lb(v6: bool) -> IpAddr {
    let text = if v6 { "2001:db8:1b::7" } else { "198.51.100.7" };
    text.parse().unwrap_or_else(|_| unreachable!("an address"))
}

/// Port 443 of a load balancer, 30443 of the node.
fn service() -> Resource {
    Resource::Service(Service {
        namespace: "ns".into(),
        name: "web".into(),
        selector: None,
        cluster_ips: Vec::new(),
        external_ips: [false, true].map(lb).into(),
        ports: vec![ServicePort {
            name: None,
            protocol: TCP,
            port: 443,
            target: TargetPort::Number(8080),
            node_port: Some(NODE_PORT),
        }],
    })
}

fn store(resources: impl IntoIterator<Item = Resource>) -> Store {
    cluster([host("eth0"), service()].into_iter().chain(resources))
}

/// A rule about what is sent to pods `app`.
fn to_app(action: Action, app: &str) -> Rule {
    Rule {
        destination: Peer {
            selector: Some(Selector::eq("app", app)),
            ..Peer::default()
        },
        ..rule(action, Some(TCP), &[])
    }
}

/// A bench whose agent marks.
struct Marking(Bench);

impl Marking {
    fn new(name: &str, store: &Store) -> Result<Self> {
        let mut bench = Self(Bench::new(name, store)?);
        bench.apply(store)?;
        Ok(bench)
    }

    fn apply(&mut self, store: &Store) -> Result<()> {
        self.0.apply(store)?;
        self.0.set(quiet())
    }

    #[track_caller]
    fn comes_in(&mut self, frame: &Frame, reason: Reason) -> Result<()> {
        let at = At {
            program: program::FROM_FABRIC,
            ifindex: FABRIC,
            ingress_ifindex: FABRIC,
        };
        let mark = if reason == Reason::Service { MARK } else { 0 };
        let seen = [(Hook::FromFabric, reason, FABRIC)];
        self.0
            .expect_marked(at, &frame.bytes(), (MASQUERADE, MASQUERADE | mark), &seen)
    }

    /// To a socket of the host; the host endpoint says `reason`.
    #[track_caller]
    fn gets(&mut self, frame: &Frame, reason: Reason) -> Result<()> {
        let at = At {
            program: program::TO_HOST,
            ifindex: FABRIC,
            ingress_ifindex: FABRIC,
        };
        let after = if reason.passes() { 0 } else { MARK };
        let seen = [(Hook::Service, reason, FABRIC)];
        self.0
            .expect_marked(at, &frame.bytes(), (MASQUERADE | MARK, MASQUERADE | after), &seen)
    }

    /// To a pod; what the host endpoint says, and what the pod's policy does.
    #[track_caller]
    fn goes_to(&mut self, pod: u32, frame: &Frame, host: Reason, own: Reason) -> Result<()> {
        let at = At {
            ingress_ifindex: FABRIC,
            ..At::to_workload(pod)
        };
        let both = [(Hook::Service, host, FABRIC), (Hook::ToWorkload, own, pod)];
        let (seen, after) = if host.passes() {
            (&both[..], 0)
        } else {
            (&both[..1], MARK)
        };
        self.0
            .expect_marked(at, &frame.bytes(), (MASQUERADE | MARK, MASQUERADE | after), seen)
    }

    /// An answer that kube-proxy has translated back.
    #[track_caller]
    fn answers(&mut self, frame: &Frame, from: u32, reason: Reason) -> Result<()> {
        let at = At {
            program: program::TO_FABRIC,
            ifindex: FABRIC,
            ingress_ifindex: from,
        };
        let seen = [(Hook::ToFabric, reason, FABRIC)];
        self.0.expect_marked(at, &frame.bytes(), (0, 0), &seen)
    }
}

fn to_lb(v6: bool, sport: u16) -> Frame {
    Frame::new(address("outside", v6), lb(v6), TCP, sport, 443)
}

fn to_node_port(v6: bool, sport: u16) -> Frame {
    tcp("outside", "node", v6, sport, NODE_PORT)
}

#[test]
fn what_this_host_serves_meets_normal_policy_about_the_port_that_it_is_served_at() -> Result<()> {
    let normal = |port| of_host("n", HostRole::Normal, allow(TCP, port), None);
    let mut bench = Marking::new("hepsvchost", &store([normal(8080)]))?;
    for v6 in [false, true] {
        for (sent, sport) in [(to_lb(v6, 1000), 1000), (to_node_port(v6, 1001), 1001)] {
            let served = tcp("outside", "node", v6, sport, 8080);
            bench.comes_in(&sent, Reason::Service)?;
            bench.gets(&served, Reason::PolicyAllow)?;
            bench.answers(&sent.reply().flags(SYN | ACK), 0, Reason::Established)?;
            bench.comes_in(&sent.clone().flags(ACK), Reason::Service)?;
            bench.gets(&served.clone().flags(ACK), Reason::Established)?;
            bench.answers(&sent.reply().flags(ACK), 0, Reason::Established)?;
            let other = tcp("outside", "node", v6, sport, 8081);
            bench.gets(&other, Reason::PolicyDeny)?;
        }
    }
    bench.apply(&store([normal(8081)]))?;
    for v6 in [false, true] {
        // It is asked again after a change.
        bench.comes_in(&to_lb(v6, 1000).flags(ACK), Reason::Service)?;
        bench.gets(
            &tcp("outside", "node", v6, 1000, 8080).flags(ACK),
            Reason::PolicyDeny,
        )?;
        // The host's own port by that number is another matter.
        bench.comes_in(&tcp("outside", "node", v6, 1002, 8080), Reason::PolicyDeny)?;
        bench.comes_in(&tcp("outside", "node", v6, 1002, 8081), Reason::PolicyAllow)?;
    }
    Ok(())
}

#[test]
fn what_pods_serve_meets_forward_policy_about_the_pod_and_no_normal_one() -> Result<()> {
    let closed = || of_host("n", HostRole::Normal, deny_all(), deny_all());
    let mut bench = Marking::new("hepsvcpod", &store([closed()]))?;
    for v6 in [false, true] {
        for (sent, sport) in [(to_lb(v6, 1000), 1000), (to_node_port(v6, 1001), 1001)] {
            let (new, old) = (Reason::PolicyAllow, Reason::Established);
            let served = tcp("outside", "a", v6, sport, 8080);
            bench.comes_in(&sent, Reason::Service)?;
            bench.goes_to(A, &served, new, new)?;
            bench.comes_in(&sent.clone().flags(ACK), Reason::Service)?;
            bench.goes_to(A, &served.flags(ACK), old, old)?;
        }
        bench.answers(
            &to_node_port(v6, 1001).reply().flags(SYN | ACK),
            A,
            Reason::Established,
        )?;
    }
    let about_a = vec![
        to_app(Action::Deny, "a"),
        Rule {
            index: 1,
            ..rule(Action::Allow, None, &[])
        },
    ];
    let forward = of_host("f", HostRole::Forward, Some(about_a), None);
    bench.apply(&store([forward]))?;
    for v6 in [false, true] {
        let (deny, pass) = (Reason::PolicyDeny, Reason::PolicyAllow);
        for (sent, sport) in [(to_lb(v6, 2000), 2000), (to_node_port(v6, 2001), 2001)] {
            bench.comes_in(&sent, Reason::Service)?;
            bench.goes_to(A, &tcp("outside", "a", v6, sport, 8080), deny, deny)?;
            bench.goes_to(B, &tcp("outside", "b", v6, sport, 8080), pass, pass)?;
        }
        // Those from before the change are cut.
        bench.comes_in(&to_lb(v6, 1000).flags(ACK), Reason::Service)?;
        bench.goes_to(A, &tcp("outside", "a", v6, 1000, 8080).flags(ACK), deny, deny)?;
        // What kube-proxy sends to another node comes from this one.
        let at = At {
            program: program::TO_FABRIC,
            ifindex: FABRIC,
            ingress_ifindex: FABRIC,
        };
        let masked = tcp("node", "remote", v6, 5000, 8080);
        let seen = [
            (Hook::Service, Reason::PolicyAllow, FABRIC),
            (Hook::ToFabric, Reason::PolicyAllow, FABRIC),
        ];
        bench
            .0
            .expect_marked(at, &masked.bytes(), (MARK | MASQUERADE, MASQUERADE), &seen)?;
        bench.comes_in(&masked.reply().flags(SYN | ACK), Reason::Established)?;
    }
    Ok(())
}

#[test]
fn pre_dnat_policy_is_about_the_services_address_and_a_change_of_it_counts() -> Result<()> {
    let about = |action, port| {
        let rules = Some(vec![Rule {
            destination: Peer {
                nets: [false, true].map(|v6| lb(v6).into()).into(),
                ..rule(action, Some(TCP), &[(port, port)]).destination
            },
            ..rule(action, Some(TCP), &[])
        }]);
        of_host("pre", HostRole::PreDnat, rules, None)
    };
    let closed = || of_host("n", HostRole::Normal, deny_all(), None);
    let mut bench = Marking::new("hepsvcpre", &store([closed(), about(Action::Deny, 8080)]))?;
    for v6 in [false, true] {
        bench.comes_in(&to_lb(v6, 1000), Reason::Service)?;
        let pass = Reason::PolicyAllow;
        bench.goes_to(A, &tcp("outside", "a", v6, 1000, 8080), pass, pass)?;
        bench.answers(&to_lb(v6, 1000).reply().flags(SYN | ACK), 0, Reason::Established)?;
    }
    bench.apply(&store([closed(), about(Action::Deny, 443)]))?;
    for v6 in [false, true] {
        bench.answers(&to_lb(v6, 1000).reply().flags(ACK), 0, Reason::PolicyDeny)?;
        bench.comes_in(&to_lb(v6, 1000).flags(ACK), Reason::PolicyDeny)?;
        bench.comes_in(&to_lb(v6, 1001), Reason::PolicyDeny)?;
        bench.comes_in(&to_node_port(v6, 1001), Reason::Service)?;
    }
    // What it allows, later policies of the host do not see.
    bench.apply(&store([closed(), about(Action::Allow, 443)]))?;
    for v6 in [false, true] {
        bench.comes_in(&to_lb(v6, 1002), Reason::PolicyAllow)?;
        bench.comes_in(&to_lb(v6, 1002).flags(ACK), Reason::Established)?;
        bench.answers(&to_lb(v6, 1002).reply().flags(SYN | ACK), 0, Reason::Established)?;
    }
    Ok(())
}

#[test]
fn an_answer_may_be_the_first_to_hear_of_a_change() -> Result<()> {
    let pre = |port| of_host("pre", HostRole::PreDnat, deny(TCP, port), None);
    let mut bench = Marking::new("hepsvcanswer", &store([pre(1)]))?;
    for v6 in [false, true] {
        bench.comes_in(&to_lb(v6, 1000), Reason::Service)?;
    }
    bench.apply(&store([pre(2)]))?;
    for v6 in [false, true] {
        bench.answers(&to_lb(v6, 1000).reply().flags(SYN | ACK), 0, Reason::Established)?;
        bench.comes_in(&to_lb(v6, 1000).flags(ACK), Reason::Service)?;
    }
    Ok(())
}

#[test]
fn a_failsafe_port_of_the_host_opens_what_is_before_translation_and_what_is_behind_it() -> Result<()> {
    let failsafe = |port| {
        Resource::FelixConfiguration(FelixConfiguration {
            name: "default".into(),
            failsafe_inbound: Some(vec![Failsafe {
                protocol: TCP,
                port,
                net: None,
            }]),
            ..FelixConfiguration::default()
        })
    };
    let closed = || {
        [
            of_host("u", HostRole::Untracked, deny(TCP, NODE_PORT), None),
            of_host("pre", HostRole::PreDnat, deny(TCP, NODE_PORT), None),
            of_host(
                "f",
                HostRole::Forward,
                Some(vec![to_app(Action::Deny, "a")]),
                None,
            ),
        ]
    };
    let with = |port| store(closed().into_iter().chain([failsafe(port)]));
    let mut bench = Marking::new("hepsvcsafe", &with(NODE_PORT))?;
    for v6 in [false, true] {
        bench.comes_in(&to_node_port(v6, 1000), Reason::Service)?;
        let deny = Reason::PolicyDeny;
        // No policy of what it leads to is opened by that.
        bench.goes_to(A, &tcp("outside", "a", v6, 1000, 8080), deny, deny)?;
        bench.gets(&tcp("outside", "node", v6, 1000, 8080), deny)?;
    }
    bench.apply(&with(8080))?;
    for v6 in [false, true] {
        bench.comes_in(&to_node_port(v6, 1001), Reason::PolicyDeny)?;
        bench.comes_in(&to_lb(v6, 1001), Reason::Service)?;
        bench.gets(&tcp("outside", "node", v6, 1001, 8080), Reason::PolicyAllow)?;
        bench.gets(&tcp("outside", "node", v6, 1001, 8081), Reason::PolicyDeny)?;
    }
    Ok(())
}

#[test]
fn untracked_policy_comes_before_all_of_it() -> Result<()> {
    let untracked = |rules| of_host("u", HostRole::Untracked, rules, None);
    let closed = || of_host("n", HostRole::Normal, deny_all(), None);
    let mut bench = Marking::new("hepsvcraw", &store([closed(), untracked(deny(TCP, 443))]))?;
    for v6 in [false, true] {
        bench.comes_in(&to_lb(v6, 1000), Reason::PolicyDeny)?;
        bench.comes_in(&to_node_port(v6, 1000), Reason::Service)?;
        bench.comes_in(&to_node_port(v6, 1000).flags(ACK), Reason::Service)?;
    }
    bench.apply(&store([closed(), untracked(allow(TCP, 443))]))?;
    for v6 in [false, true] {
        bench.comes_in(&to_lb(v6, 1001), Reason::PolicyAllow)?;
        bench.comes_in(&to_lb(v6, 1001).flags(ACK), Reason::PolicyAllow)?;
    }
    Ok(())
}

#[test]
fn what_nothing_translates_is_judged_each_time_by_the_port_that_it_has() -> Result<()> {
    let normal = |port| of_host("n", HostRole::Normal, allow(TCP, port), None);
    let mut bench = Marking::new("hepsvcplain", &store([normal(8080)]))?;
    for v6 in [false, true] {
        bench.comes_in(&to_node_port(v6, 1000), Reason::Service)?;
        bench.gets(&to_node_port(v6, 1000), Reason::PolicyDeny)?;
        bench.comes_in(&to_node_port(v6, 1000).flags(ACK), Reason::Service)?;
        bench.gets(&to_node_port(v6, 1000).flags(ACK), Reason::PolicyDeny)?;
    }
    bench.apply(&store([normal(NODE_PORT)]))?;
    for v6 in [false, true] {
        for flags in [SYN, ACK, ACK] {
            bench.comes_in(&to_node_port(v6, 1000).flags(flags), Reason::Service)?;
            bench.gets(&to_node_port(v6, 1000).flags(flags), Reason::PolicyAllow)?;
            let answer = to_node_port(v6, 1000).reply().flags(flags | ACK);
            bench.answers(&answer, 0, Reason::Established)?;
        }
    }
    Ok(())
}

#[test]
fn errors_and_later_fragments_follow_their_flow() -> Result<()> {
    let closed = of_host("n", HostRole::Normal, deny_all(), deny_all());
    let mut udp = match service() {
        Resource::Service(service) => service,
        other => panic!("{other:?}"),
    };
    for port in &mut udp.ports {
        port.protocol = UDP;
    }
    let forward = of_host("f", HostRole::Forward, deny(UDP, 53), None);
    let mut bench = Marking::new(
        "hepsvcerror",
        &cluster([host("eth0"), Resource::Service(udp), closed, forward]),
    )?;
    for v6 in [false, true] {
        let (kind, code) = if v6 { (1, 4) } else { (3, 3) };
        let sent = Frame::new(address("outside", v6), lb(v6), UDP, 1000, 443);
        bench.comes_in(&sent, Reason::Service)?;
        // The host says that nobody listens, the client that it does not any more.
        let unreachable = sent.error(address("node", v6), kind, code, 96);
        bench.answers(&unreachable, 0, Reason::Related)?;
        let theirs = sent.reply().error(address("other-node", v6), kind, code, 96);
        bench.comes_in(&theirs, Reason::Related)?;
        let part = |offset, more, to: IpAddr, port| Frame {
            fragment: Some((7, offset, more)),
            payload: 64,
            ..Frame::new(address("outside", v6), to, UDP, 1000, port)
        };
        for (first, later) in [(0, true), (9, false)].map(|(offset, more)| {
            (
                part(offset, more, lb(v6), 443),
                part(offset, more, address("a", v6), 53),
            )
        }) {
            bench.comes_in(&first, Reason::Service)?;
            bench.goes_to(A, &later, Reason::PolicyDeny, Reason::PolicyDeny)?;
        }
    }
    Ok(())
}

#[test]
fn an_interface_without_a_host_endpoint_marks_nothing_and_a_lost_one_fails_closed() -> Result<()> {
    let closed = || of_host("n", HostRole::Normal, deny_all(), deny_all());
    let mut bench = Marking::new("hepsvcnone", &cluster([host("eth1"), service(), closed()]))?;
    for v6 in [false, true] {
        bench.comes_in(&to_lb(v6, 1000), Reason::FabricPass)?;
        // Marked as by an interface of which nobody knows.
        let drop = Reason::NoEndpoint;
        bench.gets(&tcp("outside", "node", v6, 1000, 8080), drop)?;
        bench.goes_to(A, &tcp("outside", "a", v6, 1000, 8080), drop, drop)?;
        let unset = At {
            program: program::TO_HOST,
            ifindex: FABRIC,
            ingress_ifindex: 0,
        };
        let frame = tcp("outside", "node", v6, 1000, 8080).bytes();
        bench
            .0
            .expect_marked(unset, &frame, (MARK, MARK), &[(Hook::Service, drop, 0)])?;
    }
    Ok(())
}

#[test]
fn without_marks_the_services_own_address_is_judged() -> Result<()> {
    let normal = of_host("n", HostRole::Normal, allow(TCP, NODE_PORT), None);
    let forward = of_host("f", HostRole::Forward, allow(TCP, 443), None);
    let mut bench = Marking::new("hepsvcunmarked", &store([normal, forward]))?;
    bench.0.set(calico_azure_userspace::dataplane::plan::Settings {
        mark_mask: 0,
        ..quiet()
    })?;
    for v6 in [false, true] {
        bench.comes_in(&to_lb(v6, 1000), Reason::PolicyAllow)?;
        bench.comes_in(&to_node_port(v6, 1000), Reason::PolicyAllow)?;
    }
    Ok(())
}

#[test]
fn for_all_interfaces_each_of_them_marks_and_pods_interfaces_have_their_say() -> Result<()> {
    let forward = of_host(
        "f",
        HostRole::Forward,
        Some(vec![to_app(Action::Allow, "a"), to_app(Action::Allow, "b")]),
        Some(vec![to_app(Action::Allow, "a")]),
    );
    let pre = of_host("pre", HostRole::PreDnat, deny(TCP, 30_444), None);
    let open = policy("b", "b", Some(vec![rule(Action::Allow, None, &[])]), None);
    let resources = [host("*"), service(), forward, pre, open];
    let mut bench = Marking::new("hepsvcall", &cluster(resources))?;
    for v6 in [false, true] {
        let (pass, deny) = (Reason::PolicyAllow, Reason::PolicyDeny);
        bench.comes_in(&to_lb(v6, 1000), Reason::Service)?;
        bench.goes_to(A, &tcp("outside", "a", v6, 1000, 8080), pass, pass)?;
        // Out of the pod's interface its egress rules are asked.
        let at = At {
            ingress_ifindex: FABRIC,
            ..At::to_workload(B)
        };
        let seen = [(Hook::Service, pass, FABRIC), (Hook::ToWorkload, deny, B)];
        let frame = tcp("outside", "b", v6, 1000, 8080).bytes();
        bench.0.expect_marked(at, &frame, (MARK, 0), &seen)?;
        bench.comes_in(&tcp("outside", "node", v6, 1000, 30_444), deny)?;
    }
    Ok(())
}
