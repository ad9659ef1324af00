//! At pods' interfaces: what a host endpoint for all interfaces says there, and what becomes of pods' way to their host, with
//! exactly the counters that each packet moves.

use anyhow::Result;
use calico_azure_ebpf::abi::{DEFAULT_MARK_MASK, Hook, Reason, program};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::hosts::*;
use calico_azure_tests::harness::packet::{ACK, Frame, SYN};
use calico_azure_tests::harness::scenario::{A, Bench, policy, rule};
use calico_azure_userspace::model::{Action, EndpointToHost, FelixConfiguration, HostRole, Resource};

/// What becomes of traffic from pods to their host.
fn action(action: EndpointToHost) -> Resource {
    Resource::FelixConfiguration(FelixConfiguration {
        name: "default".into(),
        endpoint_to_host: Some(action),
        ..FelixConfiguration::default()
    })
}

#[test]
fn a_pod_reaches_its_host_only_as_felix_is_told() -> Result<()> {
    let egress = || {
        policy(
            "a",
            "a",
            None,
            Some(vec![rule(Action::Allow, Some(TCP), &[(22, 8080)])]),
        )
    };
    let mut bench = Bench::new("hosttohost", &cluster([egress()]))?;
    let sends = |bench: &mut Bench, frame: &Frame, reason| {
        bench.expect(At::from_workload(A), &frame.bytes(), Hook::FromWorkload, reason)
    };
    let syn = |v6, port| tcp("a", "node", v6, 1000, port);
    for v6 in [false, true] {
        sends(&mut bench, &syn(v6, 8080), Reason::EndpointToHost)?;
        // The pod's own policy has the first word, and the action is about this host alone.
        sends(&mut bench, &syn(v6, 8081), Reason::PolicyDeny)?;
        sends(
            &mut bench,
            &tcp("a", "other-node", v6, 1000, 8080),
            Reason::PolicyAllow,
        )?;
        // The host reaches the pod, and the pod may answer.
        let probe = tcp("node", "a", v6, 1000, 9);
        let at = At {
            ingress_ifindex: 0,
            ..At::to_workload(A)
        };
        bench.expect(at, &probe.bytes(), Hook::ToWorkload, Reason::FromHost)?;
        sends(&mut bench, &probe.reply().flags(SYN | ACK), Reason::Established)?;
    }
    for told in [EndpointToHost::Accept, EndpointToHost::Return] {
        bench.apply(&cluster([egress(), action(told)]))?;
        for v6 in [false, true] {
            sends(&mut bench, &syn(v6, 8080), Reason::PolicyAllow)?;
            sends(&mut bench, &syn(v6, 8080).flags(ACK), Reason::Established)?;
            sends(&mut bench, &syn(v6, 8081), Reason::PolicyDeny)?;
        }
    }
    bench.apply(&cluster([egress(), action(EndpointToHost::Drop)]))?;
    for v6 in [false, true] {
        sends(&mut bench, &syn(v6, 8080).flags(ACK), Reason::EndpointToHost)?;
    }
    // By other names of the host than its addresses.
    for (own, to) in [
        ("10.244.1.2", "224.0.0.251"),
        ("10.244.1.2", "255.255.255.255"),
        ("fd00:10:244:1::2", "fe80::ecee:eeff:feee:eeee"),
        ("fd00:10:244:1::2", "ff02::1"),
        ("fd00:10:244:1::2", "ff05::fb"),
    ] {
        let frame = Frame::new(own.parse()?, to.parse()?, TCP, 1000, 8080).flags(SYN);
        sends(&mut bench, &frame, Reason::EndpointToHost)?;
    }
    // The endpoint for all interfaces has normal policy, and none for pods.
    let of_node = || of_host("n", HostRole::Normal, deny_all(), deny_all());
    for told in [EndpointToHost::Accept, EndpointToHost::Return] {
        bench.apply(&cluster([egress(), host("*"), of_node(), action(told)]))?;
        for v6 in [false, true] {
            sends(&mut bench, &syn(v6, 443), Reason::PolicyAllow)?;
        }
    }
    Ok(())
}

#[test]
fn a_service_that_this_host_serves_is_reached_only_as_felix_is_told() -> Result<()> {
    const MASQUERADE: u32 = 0x4000;
    let ports = [(22, 8080)];
    let egress = || policy("a", "a", None, Some(vec![rule(Action::Allow, Some(TCP), &ports)]));
    let of_node = || of_host("n", HostRole::Normal, allow(TCP, 443), None);
    let felix = |told: EndpointToHost| vec![egress(), action(told)];
    let drop = Reason::EndpointToHost;
    let mut bench = Bench::new("hostservice", &cluster([egress()]))?;
    for (resources, reason) in [
        (vec![egress()], drop),
        (felix(EndpointToHost::Accept), Reason::PolicyAllow),
        (felix(EndpointToHost::Return), Reason::PolicyAllow),
        (felix(EndpointToHost::Drop), drop),
        (
            [felix(EndpointToHost::Return), vec![host("*"), of_node()]].concat(),
            Reason::PolicyAllow,
        ),
    ] {
        bench.apply(&cluster(resources))?;
        bench
            .harness
            .configure(|config| config.mark_mask = DEFAULT_MARK_MASK)?;
        let mark = bench.output.desired.endpoints[&A].mark << DEFAULT_MARK_MASK.trailing_zeros();
        let at = At {
            program: program::TO_HOST,
            ifindex: A,
            ingress_ifindex: A,
        };
        for v6 in [false, true] {
            let syn = tcp("a", "node", v6, 1000, 8080);
            let marked = MASQUERADE | mark;
            let left = if reason.passes() { MASQUERADE } else { marked };
            let seen = [(Hook::Service, reason, A)];
            bench.expect_marked(at, &syn.bytes(), (marked, left), &seen)?;
            if reason.passes() {
                let seen = [(Hook::Service, Reason::Established, A)];
                bench.expect_marked(at, &syn.clone().flags(ACK).bytes(), (mark, 0), &seen)?;
            }
            // The pod's own policy has the first word here, too.
            let other = tcp("a", "node", v6, 1000, 8081);
            let seen = [(Hook::Service, Reason::PolicyDeny, A)];
            bench.expect_marked(at, &other.bytes(), (mark, mark), &seen)?;
            // What no pod sent to a service is none of its business.
            bench.expect_marked(at, &other.bytes(), (MASQUERADE, MASQUERADE), &[])?;
        }
    }
    Ok(())
}

/// Packets at the interface of pod a.
struct AtA<'b> {
    bench: &'b mut Bench,
}

impl AtA<'_> {
    #[track_caller]
    fn sends(&mut self, frame: &Frame, reason: Reason) -> Result<()> {
        let at = At::from_workload(A);
        self.bench.expect(at, &frame.bytes(), Hook::FromWorkload, reason)
    }

    #[track_caller]
    fn gets(&mut self, frame: &Frame, reason: Reason) -> Result<()> {
        let at = At::to_workload(A);
        self.bench.expect(at, &frame.bytes(), Hook::ToWorkload, reason)
    }
}

#[test]
fn forward_policy_for_all_interfaces_governs_what_passes_through_pods_interfaces() -> Result<()> {
    let forward = || of_host("f", HostRole::Forward, allow(TCP, 80), allow(UDP, 53));
    let mut bench = Bench::new("hostall", &cluster([host("*"), forward()]))?;
    for v6 in [false, true] {
        let mut a = AtA { bench: &mut bench };
        // What the pod sends comes in, for the host; what it gets goes out.
        let syn = tcp("a", "outside", v6, 1000, 80);
        a.sends(&syn, Reason::PolicyAllow)?;
        a.gets(&syn.reply().flags(SYN | ACK), Reason::Established)?;
        a.sends(&syn.clone().flags(ACK), Reason::Established)?;
        a.sends(&tcp("a", "outside", v6, 1000, 81), Reason::PolicyDeny)?;
        a.sends(&packet("a", "outside", v6, UDP, (1000, 53)), Reason::PolicyDeny)?;
        a.gets(&packet("outside", "a", v6, UDP, (1000, 53)), Reason::PolicyAllow)?;
        a.gets(&tcp("outside", "a", v6, 1001, 80), Reason::PolicyDeny)?;
        // It is not about what the pod and its host exchange.
        a.gets(&tcp("node", "a", v6, 1000, 9), Reason::PolicyAllow)?;
    }
    // An endpoint for one interface has no say at a pod's, and what an edit takes away is cut.
    bench.apply(&cluster([host("eth0"), forward()]))?;
    for v6 in [false, true] {
        let mut a = AtA { bench: &mut bench };
        a.sends(&tcp("a", "outside", v6, 1000, 81), Reason::PolicyAllow)?;
    }
    bench.apply(&cluster([host("*"), forward()]))?;
    for v6 in [false, true] {
        let mut a = AtA { bench: &mut bench };
        let denied = tcp("a", "outside", v6, 1000, 81).flags(ACK);
        a.sends(&denied, Reason::PolicyDeny)?;
        a.gets(&denied.reply().flags(ACK), Reason::PolicyDeny)?;
        a.gets(
            &tcp("a", "outside", v6, 1000, 80).reply().flags(ACK),
            Reason::PolicyAllow,
        )?;
    }
    // Both must allow.
    let pod = policy(
        "a",
        "a",
        None,
        Some(vec![rule(Action::Allow, Some(TCP), &[(443, 443)])]),
    );
    bench.apply(&cluster([host("*"), forward(), pod]))?;
    for v6 in [false, true] {
        let mut a = AtA { bench: &mut bench };
        a.sends(&tcp("a", "outside", v6, 2000, 80), Reason::PolicyDeny)?;
        a.sends(&tcp("a", "outside", v6, 2000, 443), Reason::PolicyDeny)?;
    }
    Ok(())
}

#[test]
fn pre_dnat_policy_for_all_interfaces_governs_what_pods_send() -> Result<()> {
    let pre = || of_host("pre", HostRole::PreDnat, deny(TCP, 25), None);
    let untouched = || {
        [
            of_host("u", HostRole::Untracked, deny_all(), deny_all()),
            of_host("n", HostRole::Normal, deny_all(), deny_all()),
        ]
    };
    let with = |told| {
        let resources = [host("*"), pre(), action(told)];
        cluster(resources.into_iter().chain(untouched()))
    };
    let mut bench = Bench::new("hostallpre", &with(EndpointToHost::Accept))?;
    for told in [EndpointToHost::Return, EndpointToHost::Accept] {
        bench.apply(&with(told))?;
        for v6 in [false, true] {
            let mut a = AtA { bench: &mut bench };
            a.sends(&tcp("a", "outside", v6, 1000, 25), Reason::PolicyDeny)?;
            a.sends(&tcp("a", "outside", v6, 1000, 26), Reason::PolicyAllow)?;
            a.sends(&tcp("a", "node", v6, 1000, 25), Reason::PolicyDeny)?;
            a.sends(&tcp("a", "node", v6, 1000, 26), Reason::PolicyAllow)?;
            // It is about what comes in.
            a.gets(&tcp("outside", "a", v6, 1000, 25), Reason::PolicyAllow)?;
        }
    }
    bench.apply(&with(EndpointToHost::Drop))?;
    for v6 in [false, true] {
        let mut a = AtA { bench: &mut bench };
        a.sends(&tcp("a", "node", v6, 1000, 26), Reason::EndpointToHost)?;
    }
    Ok(())
}
