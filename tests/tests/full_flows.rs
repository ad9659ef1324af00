//! Flow tables of the loaded programs when they are full: a flood of SYNs costs established connections nothing, and whatever
//! is evicted is judged anew, which allows nothing that policy does not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use calico_azure_ebpf::abi::{Hook, Reason, map};
use calico_azure_tests::harness::packet::{ACK, Frame, SYN};
use calico_azure_tests::harness::scenario::{B, Bench, address, policy, quiet, rule, store};
use calico_azure_tests::harness::{At, Harness, Returned};
use calico_azure_userspace::dataplane::kernel::Sizes;
use calico_azure_userspace::model::Action;
use calico_azure_userspace::policy::Store;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Of each flow table.
const ROOM: u32 = 4096;

/// `b` takes TCP port 80 and begins nothing.
fn cluster() -> Store {
    let port_80 = Some(vec![rule(Action::Allow, Some(TCP), &[(80, 80)])]);
    store([policy("b", "b", port_80, Some(vec![]))])
}

fn bench(name: &str) -> Result<Bench> {
    let sizes = Sizes {
        conntrack: ROOM,
        half_open: ROOM,
        tables: 1024,
    };
    let mut bench = Bench::on(Harness::with_sizes(name, sizes)?, &cluster())?;
    bench.set(quiet())?;
    Ok(bench)
}

fn to_b(v6: bool, protocol: u8, client: u32, port: u16) -> Frame {
    // More of them than there are ports.
    let from: IpAddr = match address("outside", v6) {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) + (client >> 14)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) + u128::from(client >> 14)).into()),
    };
    let sport = 1024 + u16::try_from(client & 0x3fff).unwrap_or(0);
    Frame::new(from, address("b", v6), protocol, sport, port)
}

fn entries(bench: &Bench, name: &'static str) -> Result<u32> {
    Ok(u32::try_from(
        bench.harness.dataplane.io_ref().maps().dump_map(name)?.len(),
    )?)
}

fn connect(bench: &mut Bench, syn: &Frame) -> Result<()> {
    let (to, from) = (At::to_workload(B), At::from_workload(B));
    for (at, frame) in [
        (to, syn.clone()),
        (from, syn.reply().flags(SYN | ACK)),
        (to, syn.clone().flags(ACK)),
    ] {
        assert_eq!(
            bench.harness.run(at, &frame.bytes())?,
            Returned::Next,
            "{frame:?}"
        );
    }
    Ok(())
}

/// Packets by reason since then.
struct Since(BTreeMap<(Hook, Reason), u64>);

impl Since {
    fn now(bench: &Bench) -> Result<Self> {
        let totals = bench.harness.dataplane.io_ref().maps().counters()?.totals()?;
        Ok(Self(
            totals
                .into_iter()
                .map(|(place, count)| (place, count.packets))
                .collect(),
        ))
    }

    fn gained(&self, bench: &Bench) -> Result<BTreeMap<(Hook, Reason), u64>> {
        let Self(before) = self;
        let mut gained = Self::now(bench)?.0;
        for (place, count) in &mut gained {
            *count -= before.get(place).copied().unwrap_or(0);
        }
        gained.retain(|_, count| *count != 0);
        Ok(gained)
    }
}

#[test]
fn a_flood_of_syns_evicts_no_established_flow() -> Result<()> {
    const OPEN: u32 = 300;
    const SYNS: u32 = 8 * ROOM;
    let mut bench = bench("synflood")?;
    for v6 in [false, true] {
        let (est, half) = if v6 {
            (map::CT_EST6, map::CT_HALF6)
        } else {
            (map::CT_EST4, map::CT_HALF4)
        };
        for client in 0..OPEN {
            connect(&mut bench, &to_b(v6, TCP, client, 80))?;
        }
        assert_eq!((entries(&bench, est)?, entries(&bench, half)?), (OPEN, 0));
        let before = Since::now(&bench)?;
        let mut flood = 0;
        for client in OPEN..OPEN + SYNS {
            let syn = to_b(v6, TCP, client, 80).bytes();
            flood += u64::from(bench.harness.run(At::to_workload(B), &syn)? == Returned::Next);
        }
        // None of them was refused for want of room: the oldest gave way.
        assert_eq!(flood, u64::from(SYNS));
        let gained = before.gained(&bench)?;
        assert_eq!(gained, [((Hook::ToWorkload, Reason::PolicyAllow), flood)].into());
        let left = entries(&bench, half)?;
        assert!(
            left <= ROOM && left > ROOM / 2,
            "{left} half-open flows of {SYNS}"
        );
        assert_eq!(entries(&bench, est)?, OPEN);
        // What was established still is, whoever speaks; `b` could not begin any of it.
        let before = Since::now(&bench)?;
        for client in 0..OPEN {
            let frame = to_b(v6, TCP, client, 80).flags(ACK);
            for (at, frame) in [(At::from_workload(B), frame.reply()), (At::to_workload(B), frame)] {
                assert_eq!(
                    bench.harness.run(at, &frame.bytes())?,
                    Returned::Next,
                    "{frame:?}"
                );
            }
        }
        let each = u64::from(OPEN);
        assert_eq!(
            before.gained(&bench)?,
            [
                ((Hook::FromWorkload, Reason::Established), each),
                ((Hook::ToWorkload, Reason::Established), each),
            ]
            .into()
        );
    }
    Ok(())
}

/// The kernel's tables are LRU: what was silent longest gives way, and is a flow that nobody knows.
#[test]
fn an_evicted_flow_is_judged_anew_and_passes_only_as_what_policy_allows() -> Result<()> {
    const OPEN: u32 = 3 * ROOM;
    let mut bench = bench("evicted")?;
    for v6 in [false, true] {
        let est = if v6 { map::CT_EST6 } else { map::CT_EST4 };
        for client in 0..OPEN {
            connect(&mut bench, &to_b(v6, TCP, client, 80))?;
        }
        let left = entries(&bench, est)?;
        assert!(
            left <= ROOM && left > ROOM / 2,
            "{left} established flows of {OPEN}"
        );
        // `b` speaks first: what is remembered passes, and nothing else, because `b` may begin nothing.
        let before = Since::now(&bench)?;
        let mut passed = 0;
        for client in 0..OPEN {
            let answer = to_b(v6, TCP, client, 80).reply().flags(ACK).bytes();
            passed += u64::from(bench.harness.run(At::from_workload(B), &answer)? == Returned::Next);
        }
        assert_eq!(passed, u64::from(left));
        assert_eq!(
            before.gained(&bench)?,
            [
                ((Hook::FromWorkload, Reason::Established), passed),
                ((Hook::FromWorkload, Reason::PolicyDeny), u64::from(OPEN) - passed),
            ]
            .into()
        );
        // The client speaks: policy allows that, so the connection goes on, and `b` may answer again.
        let gone = to_b(v6, TCP, 0, 80).flags(ACK);
        bench.expect(
            At::to_workload(B),
            &gone.bytes(),
            Hook::ToWorkload,
            Reason::PolicyAllow,
        )?;
        bench.expect(
            At::from_workload(B),
            &gone.reply().bytes(),
            Hook::FromWorkload,
            Reason::Established,
        )?;
        // Another port was denied when there was room, and is now.
        let denied = to_b(v6, TCP, 0, 81).flags(ACK);
        bench.expect(
            At::to_workload(B),
            &denied.bytes(),
            Hook::ToWorkload,
            Reason::PolicyDeny,
        )?;
    }
    Ok(())
}

/// A first fragment that was forgotten takes its later ones with it; none passes for another's sake.
#[test]
fn more_datagrams_in_pieces_than_are_remembered_pass_no_piece_of_a_denied_one() -> Result<()> {
    const DATAGRAMS: u32 = 20_000;
    let mut bench = bench("fragments")?;
    let part = |v6: bool, id: u32, offset: u16| {
        // Every third is for a port that is closed; those that are open are UDP's, which have no state.
        let port = if id.is_multiple_of(3) { 81 } else { 80 };
        Frame {
            fragment: Some((id, offset, offset == 0)),
            ..to_b(v6, UDP, id, port)
        }
        .bytes()
    };
    let port_80 = Some(vec![rule(Action::Allow, Some(UDP), &[(80, 80)])]);
    bench.apply(&store([policy("b", "b", port_80, Some(vec![]))]))?;
    bench.set(quiet())?;
    for v6 in [false, true] {
        let name = if v6 { map::FRAGS6 } else { map::FRAGS4 };
        let mut firsts = 0;
        for id in 0..DATAGRAMS {
            let passed = bench.harness.run(At::to_workload(B), &part(v6, id, 0))? == Returned::Next;
            assert_eq!(passed, !id.is_multiple_of(3), "{id}");
            firsts += u64::from(passed);
        }
        let kept = u64::from(entries(&bench, name)?);
        assert!(kept <= 8192 && kept > 4096, "{kept} of {DATAGRAMS}");
        let before = Since::now(&bench)?;
        let mut passed = 0;
        for id in 0..DATAGRAMS {
            let passes = bench.harness.run(At::to_workload(B), &part(v6, id, 3))? == Returned::Next;
            assert!(
                !passes || !id.is_multiple_of(3),
                "{id}: a piece of a denied datagram"
            );
            passed += u64::from(passes);
        }
        let mut gained = before.gained(&bench)?;
        let mut reason = |reason| gained.remove(&(Hook::ToWorkload, reason)).unwrap_or(0);
        let (allowed, established) = (reason(Reason::PolicyAllow), reason(Reason::Established));
        let (denied, unknown) = (reason(Reason::PolicyDeny), reason(Reason::UnknownFragment));
        assert_eq!(allowed + established, passed);
        assert_eq!(passed + denied, kept, "what is remembered decides");
        assert_eq!(
            unknown,
            u64::from(DATAGRAMS) - kept,
            "the rest is refused with its own reason"
        );
        assert!(gained.is_empty(), "{gained:?}");
        assert!(passed < firsts, "{passed} of {firsts}");
        // There is room for a new one.
        let id = DATAGRAMS + u32::from(DATAGRAMS.is_multiple_of(3));
        bench.expect(
            At::to_workload(B),
            &part(v6, id, 0),
            Hook::ToWorkload,
            Reason::PolicyAllow,
        )?;
        let later = part(v6, id, 3);
        assert_eq!(bench.harness.run(At::to_workload(B), &later)?, Returned::Next);
    }
    Ok(())
}
