//! Azure's own addresses, on the loaded programs: what pods may ask there whatever policy says.

use anyhow::Result;
use calico_azure_ebpf::abi::{CONFIG_ALLOW_IMDS, CONFIG_ALLOW_WIRESERVER, CONFIG_DENY_IMDS, Hook, Reason};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::packet::{ACK, Frame, SYN};
use calico_azure_tests::harness::scenario::{A, B, Bench, address, policy, rule, store};
use calico_azure_userspace::model::Action;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// `a` may reach everything, `b` nothing.
fn bench(name: &str, flags: u32) -> Result<Bench> {
    let everything = Some(vec![rule(Action::Allow, None, &[])]);
    let policies = [
        policy("a", "a", None, everything),
        policy("b", "b", None, Some(Vec::new())),
    ];
    let mut bench = Bench::new(name, &store(policies))?;
    bench.harness.configure(|config| config.flags |= flags)?;
    Ok(bench)
}

fn ask(bench: &mut Bench, from: &str, to: &str, (protocol, port): (u8, u16), reason: Reason) -> Result<()> {
    let at = At::from_workload(if from == "a" { A } else { B });
    let v6 = false;
    // Another source port each time: a new flow.
    let sport = 10_000 + u16::try_from(bench.counts()?.packets())?;
    let frame = Frame::new(address(from, v6), address(to, v6), protocol, sport, port).flags(SYN);
    bench.expect(at, &frame.bytes(), Hook::FromWorkload, reason)
}

#[test]
fn the_wireservers_privileged_ports_are_not_for_pods() -> Result<()> {
    let mut bench = bench("wire", 0)?;
    for port in [80, 32526] {
        ask(&mut bench, "a", "wireserver", (TCP, port), Reason::Wireserver)?;
        ask(&mut bench, "b", "wireserver", (TCP, port), Reason::Wireserver)?;
    }
    for other in [(UDP, 53), (TCP, 53), (TCP, 443), (UDP, 80)] {
        ask(&mut bench, "a", "wireserver", other, Reason::PolicyAllow)?;
        ask(&mut bench, "b", "wireserver", other, Reason::PolicyDeny)?;
    }
    ask(&mut bench, "a", "outside", (TCP, 80), Reason::PolicyAllow)?;
    // What the wireserver begins is judged as anybody's: health probes, where a pod's policy lets them in.
    let probe = Frame::new(address("wireserver", false), address("a", false), TCP, 80, 8080).flags(SYN);
    bench.expect(
        At::to_workload(A),
        &probe.bytes(),
        Hook::ToWorkload,
        Reason::PolicyAllow,
    )?;
    let answer = probe.reply().flags(SYN | ACK).bytes();
    bench.expect(
        At::from_workload(A),
        &answer,
        Hook::FromWorkload,
        Reason::Established,
    )
}

#[test]
fn policy_decides_about_the_wireserver_where_it_is_to() -> Result<()> {
    let mut bench = bench("wire", CONFIG_ALLOW_WIRESERVER)?;
    ask(&mut bench, "a", "wireserver", (TCP, 80), Reason::PolicyAllow)?;
    ask(&mut bench, "b", "wireserver", (TCP, 80), Reason::PolicyDeny)
}

#[test]
fn the_metadata_service_is_for_whom_the_switch_says() -> Result<()> {
    for (flags, of_a, of_b) in [
        (0, Reason::PolicyAllow, Reason::PolicyDeny),
        (CONFIG_DENY_IMDS, Reason::Imds, Reason::Imds),
        (CONFIG_ALLOW_IMDS, Reason::AlwaysAllowed, Reason::AlwaysAllowed),
    ] {
        let mut bench = bench("imds", flags)?;
        ask(&mut bench, "a", "imds", (TCP, 80), of_a)?;
        ask(&mut bench, "b", "imds", (TCP, 80), of_b)?;
        // What passes is a flow, with a way back.
        let request = Frame::new(address("b", false), address("imds", false), TCP, 999, 80);
        bench.expect(
            At::from_workload(B),
            &request.clone().flags(SYN).bytes(),
            Hook::FromWorkload,
            of_b,
        )?;
        if of_b.passes() {
            let answer = request.reply().flags(SYN | ACK).bytes();
            bench.expect(At::to_workload(B), &answer, Hook::ToWorkload, Reason::Established)?;
        }
    }
    Ok(())
}
