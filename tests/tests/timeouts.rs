//! For how long a silent flow is remembered: the timeout of each protocol and each state of TCP, to the nanosecond, with all of
//! them distinct. The table of states is Calico's, as `docs/conntrack.md` has it, and knows no code of ours.

use anyhow::{Context as _, Result};
use calico_azure_ebpf::abi::Reason;
use calico_azure_ebpf::packet::SlicePacket;
use calico_azure_ebpf::verdict::workload;
use calico_azure_tests::harness::packet::{ACK, FIN, Frame, RST, SYN};
use calico_azure_tests::harness::scenario::{A, B, address, policy, rule, store};
use calico_azure_tests::harness::settings;
use calico_azure_userspace::agent::felix::{Felix, Told};
use calico_azure_userspace::dataplane::host::HostTables;
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::dataplane::{Image, plan};
use calico_azure_userspace::model::{Action, FelixConfiguration};
use calico_azure_userspace::policy::Compiler;

const SECOND: u64 = 1_000_000_000;

/// Felix's names, as the documentation of the setting has them, and a number of seconds that no other has.
const TOLD: [(&str, u64); 7] = [
    ("tcpSynSent", 11),
    ("tcpEstablished", 103),
    ("tcpFinsSeen", 31),
    ("tcpResetSeen", 43),
    ("udpTimeout", 53),
    ("icmpTimeout", 61),
    ("genericTimeout", 71),
];

/// What the client (`true`) and the server (`false`) send, one after the other.
type Said = &'static [(bool, u8)];

/// A protocol, what was said, and which timeout the flow then has.
const STATES: [(&str, u8, Said, &str); 25] = [
    ("a SYN", TCP, &[(true, SYN)], "tcpSynSent"),
    ("a SYN twice", TCP, &[(true, SYN), (true, SYN)], "tcpSynSent"),
    // It never saw the other side: whoever floods with these gets no more than with SYNs.
    (
        "an unanswered middle",
        TCP,
        &[(true, ACK), (true, ACK)],
        "tcpSynSent",
    ),
    (
        "an unanswered FIN",
        TCP,
        &[(true, SYN), (true, FIN | ACK)],
        "tcpSynSent",
    ),
    (
        "a SYN-ACK",
        TCP,
        &[(true, SYN), (false, SYN | ACK)],
        "tcpEstablished",
    ),
    ("a handshake", TCP, HANDSHAKE, "tcpEstablished"),
    (
        "data",
        TCP,
        &[
            (true, SYN),
            (false, SYN | ACK),
            (true, ACK),
            (false, ACK),
            (true, ACK),
        ],
        "tcpEstablished",
    ),
    (
        "the client's FIN",
        TCP,
        &[
            (true, SYN),
            (false, SYN | ACK),
            (true, ACK),
            (true, FIN | ACK),
            (false, ACK),
        ],
        "tcpEstablished",
    ),
    (
        "the server's FIN",
        TCP,
        &[
            (true, SYN),
            (false, SYN | ACK),
            (true, ACK),
            (false, FIN | ACK),
            (true, ACK),
        ],
        "tcpEstablished",
    ),
    (
        "both FINs",
        TCP,
        &[
            (true, SYN),
            (false, SYN | ACK),
            (true, ACK),
            (true, FIN | ACK),
            (false, FIN | ACK),
        ],
        "tcpFinsSeen",
    ),
    (
        "both FINs, the server's first, and an ACK",
        TCP,
        &[
            (true, SYN),
            (false, SYN | ACK),
            (true, ACK),
            (false, FIN | ACK),
            (true, FIN | ACK),
            (false, ACK),
        ],
        "tcpFinsSeen",
    ),
    (
        "a refusal",
        TCP,
        &[(true, SYN), (false, RST | ACK)],
        "tcpResetSeen",
    ),
    (
        "a SYN taken back",
        TCP,
        &[(true, SYN), (true, RST)],
        "tcpResetSeen",
    ),
    (
        "the client's RST",
        TCP,
        &[(true, SYN), (false, SYN | ACK), (true, ACK), (true, RST)],
        "tcpResetSeen",
    ),
    (
        "the server's RST",
        TCP,
        &[(true, SYN), (false, SYN | ACK), (true, ACK), (false, RST | ACK)],
        "tcpResetSeen",
    ),
    (
        "a RST after both FINs",
        TCP,
        &[
            (true, SYN),
            (false, SYN | ACK),
            (true, ACK),
            (true, FIN | ACK),
            (false, FIN | ACK),
            (true, RST),
        ],
        "tcpResetSeen",
    ),
    (
        "a new SYN after both FINs",
        TCP,
        &[
            (true, SYN),
            (false, SYN | ACK),
            (true, ACK),
            (true, FIN | ACK),
            (false, FIN | ACK),
            (true, SYN),
        ],
        "tcpSynSent",
    ),
    (
        "a new SYN after a RST",
        TCP,
        &[(true, SYN), (false, RST | ACK), (true, SYN)],
        "tcpSynSent",
    ),
    (
        "a new connection after a RST",
        TCP,
        &[
            (true, SYN),
            (false, RST | ACK),
            (true, SYN),
            (false, SYN | ACK),
            (true, ACK),
        ],
        "tcpEstablished",
    ),
    ("a datagram", UDP, &[(true, 0)], "udpTimeout"),
    (
        "an answered datagram",
        UDP,
        &[(true, 0), (false, 0), (true, 0)],
        "udpTimeout",
    ),
    ("an echo request", ICMP, &[(true, 0)], "icmpTimeout"),
    (
        "an answered echo request",
        ICMP,
        &[(true, 0), (false, 0)],
        "icmpTimeout",
    ),
    ("SCTP", 132, &[(true, 0), (false, 0)], "genericTimeout"),
    (
        "a protocol without ports",
        47,
        &[(true, 0), (false, 0)],
        "genericTimeout",
    ),
];

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Or ICMPv6, by the addresses.
const ICMP: u8 = 1;
const HANDSHAKE: Said = &[(true, SYN), (false, SYN | ACK), (true, ACK)];

fn told(name: &str) -> Result<u64> {
    let found = TOLD.iter().find(|(told, _)| *told == name);
    Ok(found.with_context(|| format!("no setting {name}"))?.1 * SECOND)
}

/// What the agent makes of a FelixConfiguration with all of them.
fn timeouts() -> Result<[u64; 8]> {
    let told = TOLD.map(|(name, seconds)| {
        let key = format!("bpfconntracktimeouts.{}", name.to_lowercase());
        (key, format!("{seconds}s"))
    });
    let object = FelixConfiguration {
        name: "default".into(),
        all: told.into(),
        ..FelixConfiguration::default()
    };
    let (felix, problems) = Felix::of(&Told::default(), std::iter::once(&object));
    assert_eq!(problems, Vec::<String>::new());
    Ok(felix.timeouts)
}

/// `b` takes anything and begins nothing, so what it sends passes only while its flow is known.
fn tables(timeouts: [u64; 8]) -> Result<HostTables> {
    let anything = Some(vec![rule(Action::Allow, None, &[])]);
    let desired = Compiler::default()
        .compile(&store([policy("b", "b", anything, Some(vec![]))]))?
        .desired;
    let settings = Settings {
        timeouts,
        ..settings()
    };
    let mut image = Image::default();
    let plan = plan(&Image::default(), &desired, settings)?;
    for op in plan.prepare.iter().chain(&plan.flip).chain(&plan.settle) {
        image.follow(op);
    }
    let tables = HostTables::new(image);
    tables.clock.set(1000 * SECOND);
    Ok(tables)
}

/// `b` is sent something, or sends it.
fn pass(tables: &HostTables, frame: &Frame, to_b: bool) -> Reason {
    let packet = SlicePacket {
        bytes: &frame.bytes(),
        ifindex: B,
        ingress_ifindex: A,
        mark: Default::default(),
    };
    if to_b {
        workload::to_workload(&packet, tables).reason
    } else {
        workload::from_workload(&packet, tables).reason
    }
}

/// Whether `b` may still answer after what was said and so much silence.
fn answers(timeouts: [u64; 8], first: &Frame, said: Said, silence: u64) -> Result<bool> {
    let tables = tables(timeouts)?;
    for &(client, flags) in said {
        // More than the time by which an entry's own may lag.
        tables.clock.set(tables.clock.get() + SECOND);
        let frame = if client { first.clone() } else { first.reply() }.flags(flags);
        let reason = pass(&tables, &frame, client);
        assert!(reason.passes(), "{frame:?}: {reason:?}");
    }
    tables.clock.set(tables.clock.get() + silence);
    let last = first.reply().flags(ACK);
    match pass(&tables, &last, false) {
        Reason::Established => Ok(true),
        Reason::PolicyDeny => Ok(false),
        other => anyhow::bail!("{other:?}"),
    }
}

#[test]
fn each_state_of_each_protocol_has_its_own_timeout() -> Result<()> {
    let timeouts = timeouts()?;
    // One of them sorts before `b`, the other after it.
    for peer in ["a", "remote"] {
        for v6 in [false, true] {
            for (what, protocol, said, name) in STATES {
                let (protocol, port) = match (protocol, v6) {
                    (ICMP, false) => (1, 8 << 8),
                    (ICMP, true) => (58, 128 << 8),
                    _ => (protocol, 80),
                };
                let first = Frame::new(address(peer, v6), address("b", v6), protocol, 1000, port);
                let timeout = told(name)?;
                let what = format!("{what} from {peer}, protocol {protocol}: {name}");
                assert!(
                    answers(timeouts, &first, said, timeout)?,
                    "{what}: forgotten too early"
                );
                assert!(
                    !answers(timeouts, &first, said, timeout + 1)?,
                    "{what}: remembered for too long"
                );
            }
        }
    }
    Ok(())
}

/// The line of `docs/agent.md` that names the settings and what they are without being told.
#[test]
fn the_documented_defaults_are_in_force() -> Result<()> {
    let text = include_str!("../../docs/agent.md");
    let line = text.lines().find(|line| line.contains("bpfConntrackTimeouts"));
    let line = line.context("docs/agent.md does not name bpfConntrackTimeouts")?;
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let names = cells[1]
        .split('`')
        .filter(|name| TOLD.iter().any(|(told, _)| told == name));
    let values = cells[3].split(", ").map(|value| -> Result<u64> {
        let (number, unit) = value.split_once(' ').context("a number and a unit")?;
        let unit = match unit {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            other => anyhow::bail!("{other} is no unit"),
        };
        Ok(number.parse::<u64>()? * unit * SECOND)
    });
    let values = values.collect::<Result<Vec<_>>>()?;
    let documented: Vec<(&str, u64)> = names.zip(values.iter().copied()).collect();
    assert_eq!(
        (documented.len(), values.len()),
        (TOLD.len(), TOLD.len()),
        "{line}"
    );
    let defaults = Settings::default().timeouts;
    for (name, default) in documented {
        let (_, protocol, said, _) = STATES
            .iter()
            .find(|state| state.3 == name)
            .with_context(|| format!("no state for {name}"))?;
        let port = if *protocol == ICMP { 8 << 8 } else { 80 };
        let first = Frame::new(address("a", false), address("b", false), *protocol, 1000, port);
        assert!(
            answers(defaults, &first, said, default)?,
            "{name}: less than {default} ns"
        );
        assert!(
            !answers(defaults, &first, said, default + 1)?,
            "{name}: more than {default} ns"
        );
    }
    Ok(())
}
