//! Host endpoints on the loaded programs: each stage, failsafe ports, flows and changes of policy, with exactly the
//! counters that each packet moves.

use anyhow::Result;
use calico_azure_ebpf::abi::Reason;
use calico_azure_tests::harness::hosts::*;
use calico_azure_tests::harness::packet::{ACK, Frame, SYN};
use calico_azure_tests::harness::scenario::{A, Bench, TUNNEL, address, rule};
use calico_azure_userspace::model::{Action, Failsafe, FelixConfiguration, HostRole, Resource, Rule};

#[test]
fn without_a_host_endpoint_nothing_is_restricted() -> Result<()> {
    let closed = of_host("p", HostRole::Normal, deny_all(), deny_all());
    let mut bench = Bench::new("hostnone", &cluster([closed]))?;
    let mut at = At0 { bench: &mut bench };
    for v6 in [false, true] {
        at.comes_in(&tcp("outside", "node", v6, 1000, 81), Reason::FabricPass)?;
        at.goes_out(&tcp("node", "outside", v6, 1000, 81), Reason::FabricPass)?;
    }
    Ok(())
}

#[test]
fn what_the_host_gets_and_sends_is_up_to_its_policy_and_replies_return() -> Result<()> {
    let policy = of_host("p", HostRole::Normal, allow(TCP, 8080), allow(UDP, 123));
    let mut bench = Bench::new("hostown", &cluster([host("eth0"), policy]))?;
    let mut at = At0 { bench: &mut bench };
    for v6 in [false, true] {
        let syn = tcp("outside", "node", v6, 1000, 8080);
        at.comes_in(&syn, Reason::PolicyAllow)?;
        at.goes_out(&syn.reply().flags(SYN | ACK), Reason::Established)?;
        at.comes_in(&syn.clone().flags(ACK), Reason::Established)?;
        at.goes_out(&syn.reply().flags(ACK), Reason::Established)?;
        at.comes_in(&tcp("outside", "node", v6, 1000, 8081), Reason::PolicyDeny)?;
        // The host's own connection from that port is another matter.
        at.goes_out(&tcp("node", "outside", v6, 8080, 1001), Reason::PolicyDeny)?;
        let time = packet("node", "outside", v6, UDP, (123, 123));
        at.goes_out(&time, Reason::PolicyAllow)?;
        at.comes_in(&time.reply(), Reason::Established)?;
        at.goes_out(
            &packet("node", "outside", v6, UDP, (123, 124)),
            Reason::PolicyDeny,
        )?;
    }
    Ok(())
}

#[test]
fn failsafe_ports_come_before_everything_and_are_the_hosts_only() -> Result<()> {
    let resources = |more: Vec<Resource>| {
        let closed = |name, role| of_host(name, role, deny_all(), deny_all());
        let pre = of_host("pre", HostRole::PreDnat, deny_all(), None);
        let base = [
            host("eth0"),
            closed("untracked", HostRole::Untracked),
            pre,
            closed("forward", HostRole::Forward),
        ];
        cluster(base.into_iter().chain(more))
    };
    let mut bench = Bench::new("hostsafe", &resources(Vec::new()))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        let ssh = tcp("outside", "node", v6, 1000, 22);
        at.comes_in(&ssh, Reason::PolicyAllow)?;
        // No untracked policy lets the answer out, but it belongs to a flow that a failsafe port let in.
        at.goes_out(&ssh.reply().flags(SYN | ACK), Reason::Established)?;
        at.comes_in(&ssh.clone().flags(ACK), Reason::Established)?;
        at.goes_out(&tcp("node", "outside", v6, 22, 1001), Reason::PolicyDeny)?;
        let dns = packet("node", "outside", v6, UDP, (1000, 53));
        at.goes_out(&dns, Reason::PolicyAllow)?;
        at.comes_in(&dns.reply(), Reason::Established)?;
        at.comes_in(
            &packet("outside", "node", v6, UDP, (53, 1001)),
            Reason::PolicyDeny,
        )?;
        at.comes_in(&tcp("outside", "a", v6, 1000, 22), Reason::PolicyDeny)?;
        at.leaves(&tcp("a", "outside", v6, 1000, 6443), A, Reason::PolicyDeny)?;
    }
    let failsafe = |net: &str| Failsafe {
        protocol: TCP,
        port: 9999,
        net: net.parse().ok(),
    };
    let configured = Resource::FelixConfiguration(FelixConfiguration {
        name: "node.n1".into(),
        failsafe_inbound: Some(vec![failsafe("203.0.113.0/24"), failsafe("2001:db8:ffff::/64")]),
        ..FelixConfiguration::default()
    });
    bench.apply(&resources(vec![configured]))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.comes_in(&tcp("outside", "node", v6, 2000, 9999), Reason::PolicyAllow)?;
        at.comes_in(&tcp("other-node", "node", v6, 2000, 9999), Reason::PolicyDeny)?;
        at.comes_in(&tcp("outside", "node", v6, 2000, 22), Reason::PolicyDeny)?;
    }
    Ok(())
}

#[test]
fn azures_own_addresses_dhcp_and_neighbours_are_never_blocked_for_the_host() -> Result<()> {
    let none = Resource::FelixConfiguration(FelixConfiguration {
        name: "default".into(),
        failsafe_inbound: Some(Vec::new()),
        failsafe_outbound: Some(Vec::new()),
        ..FelixConfiguration::default()
    });
    let closed = of_host("u", HostRole::Untracked, deny_all(), deny_all());
    let mut bench = Bench::new("hostalways", &cluster([host("eth0"), none, closed]))?;
    let mut at = At0 { bench: &mut bench };
    let node = address("node", false);
    for azure in ["168.63.129.16", "169.254.169.254"] {
        let azure = azure.parse()?;
        at.goes_out(&Frame::new(node, azure, TCP, 1000, 80), Reason::AlwaysAllowed)?;
        at.comes_in(&Frame::new(azure, node, TCP, 1000, 8081), Reason::AlwaysAllowed)?;
        // A pod's are policy's business; nothing forwards by itself past an untracked deny.
        let pods = Frame::new(address("a", false), azure, TCP, 1000, 80);
        at.leaves(&pods, A, Reason::PolicyDeny)?;
    }
    let broadcast = "255.255.255.255".parse()?;
    at.goes_out(
        &Frame::new("0.0.0.0".parse()?, broadcast, UDP, 68, 67),
        Reason::AlwaysAllowed,
    )?;
    at.comes_in(
        &Frame::new("10.0.0.1".parse()?, broadcast, UDP, 67, 68),
        Reason::AlwaysAllowed,
    )?;
    at.comes_in(
        &Frame::new("10.0.0.1".parse()?, broadcast, UDP, 67, 69),
        Reason::PolicyDeny,
    )?;
    let solicitation = Frame {
        hop_limit: 255,
        payload: 24,
        ..Frame::new(address("node", true), "ff02::1:ff00:5".parse()?, 58, 0, 135 << 8)
    };
    at.goes_out(&solicitation, Reason::FabricPass)
}

#[test]
fn the_tunnel_between_nodes_is_never_blocked() -> Result<()> {
    let untracked = of_host("u", HostRole::Untracked, deny_all(), deny_all());
    let normal = of_host("n", HostRole::Normal, deny_all(), deny_all());
    let mut bench = Bench::new("hosttunnel", &cluster([host("eth0"), untracked, normal]))?;
    let mut at = At0 { bench: &mut bench };
    for v6 in [false, true] {
        let tunnel = |src: &str, dst: &str, port: u16| Frame {
            // ARP inside, which is nobody's.
            payload: 60,
            ..packet(src, dst, v6, UDP, (50_000, port))
        };
        at.comes_in(&tunnel("other-node", "node", TUNNEL), Reason::AlwaysAllowed)?;
        at.goes_out(&tunnel("node", "other-node", TUNNEL), Reason::AlwaysAllowed)?;
        // Not by other ports, and nobody but nodes.
        at.comes_in(&tunnel("other-node", "node", TUNNEL + 1), Reason::PolicyDeny)?;
        at.comes_in(&tunnel("outside", "node", TUNNEL), Reason::PolicyDeny)?;
        at.goes_out(&tunnel("node", "outside", TUNNEL), Reason::PolicyDeny)?;
    }
    Ok(())
}

#[test]
fn what_passes_through_meets_forward_policy_only() -> Result<()> {
    let normal = || of_host("n", HostRole::Normal, deny_all(), deny_all());
    let mut bench = Bench::new("hostfwd", &cluster([host("eth0"), normal()]))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.comes_in(&tcp("outside", "a", v6, 1000, 80), Reason::PolicyAllow)?;
        at.leaves(&tcp("a", "outside", v6, 1000, 80), A, Reason::PolicyAllow)?;
    }
    let forward = of_host("f", HostRole::Forward, allow(TCP, 80), deny(TCP, 25));
    bench.apply(&cluster([host("eth0"), normal(), forward]))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        let syn = tcp("outside", "a", v6, 2000, 80);
        at.comes_in(&syn, Reason::PolicyAllow)?;
        at.leaves(&syn.reply().flags(SYN | ACK), A, Reason::Established)?;
        // The tier's end denies, because a policy of it is about this direction.
        at.comes_in(&tcp("outside", "a", v6, 2000, 81), Reason::PolicyDeny)?;
        at.leaves(&tcp("a", "outside", v6, 2000, 25), A, Reason::PolicyDeny)?;
        at.leaves(&tcp("a", "outside", v6, 2000, 26), A, Reason::PolicyDeny)?;
        // Validation of sources comes first.
        at.comes_in(&tcp("b", "a", v6, 2000, 80), Reason::LocalSource)?;
        at.leaves(&tcp("outside", "remote", v6, 2000, 80), A, Reason::UnknownSource)?;
    }
    Ok(())
}

#[test]
fn pre_dnat_policy_sees_what_comes_in_before_other_policy() -> Result<()> {
    let rules = Some(vec![
        rule(Action::Deny, Some(TCP), &[(30_000, 30_000)]),
        rule(Action::Allow, Some(TCP), &[(30_001, 30_001)]),
    ]);
    let pre = of_host("pre", HostRole::PreDnat, rules, None);
    let open = of_host("n", HostRole::Forward, allow(TCP, 30_000), None);
    let mut bench = Bench::new("hostpre", &cluster([host("eth0"), pre, open]))?;
    let mut at = At0 { bench: &mut bench };
    for v6 in [false, true] {
        for to in ["node", "a"] {
            at.comes_in(&tcp("outside", to, v6, 1000, 30_000), Reason::PolicyDeny)?;
            at.comes_in(&tcp("outside", to, v6, 1000, 30_001), Reason::PolicyAllow)?;
            at.comes_in(&tcp("outside", to, v6, 1000, 30_002), Reason::PolicyDeny)?;
        }
    }
    Ok(())
}

#[test]
fn untracked_policy_judges_every_packet_and_remembers_none() -> Result<()> {
    let both = || of_host("u", HostRole::Untracked, allow(UDP, 7), None);
    let mut bench = Bench::new("hostraw", &cluster([host("eth0"), both()]))?;
    let echo = |v6| packet("outside", "node", v6, UDP, (1000, 7));
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.comes_in(&echo(v6), Reason::PolicyAllow)?;
        at.comes_in(&echo(v6), Reason::PolicyAllow)?;
        at.goes_out(&echo(v6).reply(), Reason::PolicyDeny)?;
    }
    let back = Rule {
        source: calico_azure_userspace::model::Peer {
            ports: vec![calico_azure_userspace::model::PortRange { first: 7, last: 7 }],
            ..Default::default()
        },
        ..rule(Action::Allow, Some(UDP), &[])
    };
    let out = of_host("u2", HostRole::Untracked, None, Some(vec![back]));
    bench.apply(&cluster([host("eth0"), both(), out]))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.goes_out(&echo(v6).reply(), Reason::PolicyAllow)?;
    }
    // A deny stops flows that were approved.
    let normal = || of_host("n", HostRole::Normal, allow(TCP, 80), None);
    bench.apply(&cluster([host("eth0"), normal()]))?;
    let syn = |v6| tcp("outside", "node", v6, 3000, 80);
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.comes_in(&syn(v6), Reason::PolicyAllow)?;
    }
    let closed = of_host("u", HostRole::Untracked, deny(TCP, 80), None);
    bench.apply(&cluster([host("eth0"), normal(), closed]))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.comes_in(&syn(v6).flags(ACK), Reason::PolicyDeny)?;
    }
    Ok(())
}

#[test]
fn a_change_of_policy_cuts_flows_that_it_no_longer_allows() -> Result<()> {
    let open = |port| of_host("n", HostRole::Normal, allow(TCP, port), None);
    let mut bench = Bench::new("hostcut", &cluster([host("eth0"), open(80)]))?;
    let syn = |v6| tcp("outside", "node", v6, 1000, 80);
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.comes_in(&syn(v6), Reason::PolicyAllow)?;
        at.goes_out(&syn(v6).reply().flags(SYN | ACK), Reason::Established)?;
    }
    bench.apply(&cluster([
        host("eth0"),
        open(80),
        of_host("m", HostRole::Normal, None, None),
    ]))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.goes_out(&syn(v6).reply().flags(ACK), Reason::Established)?;
    }
    bench.apply(&cluster([host("eth0"), open(81)]))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        // Whichever side speaks next.
        at.goes_out(&syn(v6).reply().flags(ACK), Reason::PolicyDeny)?;
        at.comes_in(&syn(v6).flags(ACK), Reason::PolicyDeny)?;
    }
    bench.apply(&cluster([open(81)]))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.comes_in(&syn(v6), Reason::FabricPass)?;
    }
    Ok(())
}

#[test]
fn later_fragments_follow_their_first_at_host_endpoints() -> Result<()> {
    let policy = of_host("p", HostRole::Normal, allow(UDP, 80), None);
    let mut bench = Bench::new("hostfrag", &cluster([host("*"), policy]))?;
    let mut at = At0 { bench: &mut bench };
    for v6 in [false, true] {
        let part = |id, offset, more, dport| Frame {
            fragment: Some((id, offset, more)),
            payload: 64,
            ..packet("outside", "node", v6, UDP, (1000, dport))
        };
        at.comes_in(&part(1, 9, false, 80), Reason::UnknownFragment)?;
        at.comes_in(&part(2, 0, true, 80), Reason::PolicyAllow)?;
        at.comes_in(&part(2, 9, false, 80), Reason::Established)?;
        at.comes_in(&part(3, 0, true, 81), Reason::PolicyDeny)?;
        at.comes_in(&part(3, 9, false, 81), Reason::PolicyDeny)?;
    }
    Ok(())
}

#[test]
fn errors_follow_the_flow_that_they_are_about_at_host_endpoints() -> Result<()> {
    let told = |port| of_host("p", HostRole::Normal, allow(UDP, 80), allow(UDP, port));
    let mut bench = Bench::new("hosterror", &cluster([host("eth0"), told(123)]))?;
    let ntp = |v6| packet("node", "outside", v6, UDP, (1000, 123));
    let unreachable = |frame: &Frame, router: &str, v6: bool| {
        let (kind, code) = if v6 { (1, 4) } else { (3, 3) };
        frame.error(address(router, v6), kind, code, 96)
    };
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.goes_out(&ntp(v6), Reason::PolicyAllow)?;
        // Any router on the way may say so, about what was sent and nothing else.
        for router in ["outside", "other-node"] {
            at.comes_in(&unreachable(&ntp(v6), router, v6), Reason::Related)?;
        }
        let other = packet("node", "outside", v6, UDP, (1001, 123));
        at.comes_in(&unreachable(&other, "outside", v6), Reason::PolicyDeny)?;
        let theirs = Frame {
            dst: address("node", v6),
            ..unreachable(&packet("outside", "node", v6, UDP, (123, 1000)), "outside", v6)
        };
        at.comes_in(&theirs, Reason::UnrelatedError)?;
        let question = packet("outside", "node", v6, UDP, (1000, 80));
        at.comes_in(&question, Reason::PolicyAllow)?;
        at.goes_out(&unreachable(&question, "node", v6), Reason::Related)?;
        let unasked = packet("outside", "node", v6, UDP, (1001, 80));
        at.goes_out(&unreachable(&unasked, "node", v6), Reason::PolicyDeny)?;
    }
    bench.apply(&cluster([host("eth0"), told(124)]))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.comes_in(&unreachable(&ntp(v6), "outside", v6), Reason::PolicyDeny)?;
    }
    Ok(())
}

#[test]
fn a_reply_to_what_was_masqueraded_does_not_make_it_the_hosts_own() -> Result<()> {
    let told = |port| {
        cluster([
            host("eth0"),
            of_host("n", HostRole::Normal, allow(TCP, 443), allow(TCP, 443)),
            of_host("f", HostRole::Forward, None, allow(TCP, port)),
        ])
    };
    let mut bench = Bench::new("hostmasq", &told(443))?;
    // As kube-proxy or a masquerading agent sends on what came from a pod.
    let syn = |v6| tcp("node", "outside", v6, 1000, 443);
    let ack = |v6| syn(v6).reply().flags(SYN | ACK);
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.leaves(&syn(v6), A, Reason::PolicyAllow)?;
        at.comes_in(&ack(v6), Reason::Established)?;
    }
    bench.apply(&told(444))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.comes_in(&ack(v6), Reason::PolicyDeny)?;
        at.leaves(&syn(v6).flags(ACK), A, Reason::PolicyDeny)?;
        // The host's own, by the same port.
        at.goes_out(&syn(v6), Reason::PolicyAllow)?;
    }
    bench.apply(&told(445))?;
    for v6 in [false, true] {
        let mut at = At0 { bench: &mut bench };
        at.comes_in(&ack(v6), Reason::PolicyAllow)?;
    }
    Ok(())
}
