//! What begins between a pod and somebody who may be a pod that nobody knows, on the loaded programs: at addresses of the node's podCIDR
//! without a pod, and behind interfaces that no agent has looked at. Policy allows it, or says first that it does not.

use anyhow::Result;
use calico_azure_ebpf::abi::{CONFIG_ALLOW_UNKNOWN, CONFIG_LINKS, Hook, Reason};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::packet::{ACK, Frame};
use calico_azure_tests::harness::scenario::{A, B, Bench, FABRIC, address, policy, quiet, rule, store};
use calico_azure_userspace::dataplane::links;
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::model::Action;

const TCP: u8 = 6;

/// `a` sends to port 80 only; `b` accepts port 80 only.
fn bench(name: &str) -> Result<Bench> {
    let port_80 = || Some(vec![rule(Action::Allow, Some(TCP), &[(80, 80)])]);
    let policies = [
        policy("a", "a", None, port_80()),
        policy("b", "b", port_80(), None),
    ];
    Bench::new(name, &store(policies))
}

fn set(bench: &mut Bench, flags: u32) -> Result<()> {
    bench.harness.dataplane.io().maps().forget_flows()?;
    bench.set(Settings {
        flags: quiet().flags | flags,
        ..quiet()
    })
}

fn tcp(from: &str, to: &str, v6: bool, sport: u16, dport: u16) -> Frame {
    Frame::new(address(from, v6), address(to, v6), TCP, sport, dport)
}

#[test]
fn nothing_begins_with_an_address_of_the_node_that_no_pod_has() -> Result<()> {
    let mut bench = bench("strangers")?;
    let (from, to) = (Hook::FromWorkload, Hook::ToWorkload);
    for v6 in [false, true] {
        let out = |dport| tcp("a", "unassigned", v6, 1000, dport).bytes();
        let back = |dport| tcp("unassigned", "b", v6, 1000, dport).bytes();
        let (a, b) = (At::from_workload(A), At::to_workload(B));
        for flags in [0, CONFIG_LINKS] {
            set(&mut bench, flags)?;
            bench.expect(a, &out(80), from, Reason::NoSuchWorkload)?;
            bench.expect(b, &back(80), to, Reason::UnknownSource)?;
            // Nor does anything go on that way that nothing began.
            let middle = Frame {
                tcp_flags: ACK,
                ..tcp("a", "unassigned", v6, 1000, 80)
            };
            bench.expect(a, &middle.bytes(), from, Reason::NoSuchWorkload)?;
            bench.expect(a, &out(81), from, Reason::PolicyDeny)?;
            bench.expect(b, &back(81), to, Reason::PolicyDeny)?;
        }
        set(&mut bench, CONFIG_ALLOW_UNKNOWN)?;
        bench.expect(a, &out(80), from, Reason::PolicyAllow)?;
        bench.expect(b, &back(80), to, Reason::PolicyAllow)?;
        // It has begun.
        set(&mut bench, 0)?;
        bench.set(Settings {
            flags: CONFIG_ALLOW_UNKNOWN,
            ..quiet()
        })?;
        bench.expect(a, &out(80), from, Reason::PolicyAllow)?;
        bench.set(quiet())?;
        let more = Frame {
            tcp_flags: ACK,
            ..tcp("a", "unassigned", v6, 1000, 80)
        };
        bench.expect(a, &more.bytes(), from, Reason::Established)?;
    }
    Ok(())
}

#[test]
fn nothing_begins_by_an_interface_that_no_agent_has_looked_at() -> Result<()> {
    let mut bench = bench("unlisted")?;
    let at = At {
        ingress_ifindex: FABRIC,
        ..At::to_workload(B)
    };
    for v6 in [false, true] {
        // Whatever it says it is.
        for from in ["outside", "remote", "a"] {
            let packet = |dport| tcp(from, "b", v6, 1000, dport).bytes();
            set(&mut bench, CONFIG_LINKS)?;
            bench.expect(at, &packet(80), Hook::ToWorkload, Reason::UnknownSource)?;
            bench.expect(at, &packet(81), Hook::ToWorkload, Reason::PolicyDeny)?;
            let maps = bench.harness.dataplane.io_ref().maps();
            links::list(maps, FABRIC)?;
            assert!(links::listed(maps)?.contains(&FABRIC));
            bench.expect(at, &packet(80), Hook::ToWorkload, Reason::PolicyAllow)?;
            links::unlist(bench.harness.dataplane.io_ref().maps(), FABRIC)?;
            // It has begun, and goes on.
            let more = Frame {
                tcp_flags: ACK,
                ..tcp(from, "b", v6, 1000, 80)
            };
            bench.expect(at, &more.bytes(), Hook::ToWorkload, Reason::Established)?;
            set(&mut bench, 0)?;
            bench.expect(at, &packet(80), Hook::ToWorkload, Reason::PolicyAllow)?;
        }
        // The host's own is not asked.
        set(&mut bench, CONFIG_LINKS)?;
        let own = At {
            ingress_ifindex: 0,
            ..at
        };
        let packet = tcp("node", "b", v6, 1000, 81).bytes();
        bench.expect(own, &packet, Hook::ToWorkload, Reason::FromHost)?;
    }
    Ok(())
}
