//! Whole runs of `verdict`, in memory.

use std::fs;

use super::*;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: homeless, namespace: shop, labels: {app: db}}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 10.9.0.1}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: app == 'db'
  types: [Ingress]
  ingress:
  - action: Allow
    protocol: TCP
    source: {selector: app == 'web'}
    destination: {ports: [5432]}
";

/// Exit code, standard output, standard error.
fn run(engine: EngineName, packets: &str) -> (u8, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let (manifests, input) = (dir.path().join("shop.yaml"), dir.path().join("packets.jsonl"));
    fs::write(&manifests, SHOP).unwrap();
    fs::write(&input, packets).unwrap();
    let cli = Cli::try_parse_from([
        "verdict".as_ref(),
        "--engine".as_ref(),
        engine.as_str().as_ref(),
        "--packets".as_ref(),
        input.as_os_str(),
        manifests.as_os_str(),
    ])
    .unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli.args.print(&mut out, &mut err).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code, text(out), text(err))
}

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: VerdictArgs,
}

use clap::Parser as _;

#[test]
fn answers_come_in_order_with_reasons_and_rules() {
    let packets = r#"
{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":"tcp","dport":5432}
{"id":"two","src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"dport":5433}
{"id":[3, 3.0],"src":"192.0.2.1","dst":"10.0.0.2","protocol":"TCP","dport":5432,"more":true}

{"src":"10.0.0.1","dst":"192.0.2.1","protocol":"udp","dport":53}
{"id":5,"src":"192.0.2.1","dst":"192.0.2.2","protocol":"icmp","icmp_type":8}
{"id":6,"src":"10.0.0.1","dst":"10.0.0.1","protocol":47}
{"id":7,"src":"10.0.0.1","dst":"10.0.0.2","protocol":"tcp","dport":5432,"hook":"ingress","endpoint":"shop/db"}
{"id":8,"src":"10.0.0.1","dst":"10.0.0.7","protocol":"tcp","dport":5432,"hook":"ingress","endpoint":"shop/homeless"}
{"id":9,"src":"10.0.0.9","dst":"10.0.0.2","protocol":"tcp","dport":1,"hook":"egress","endpoint":"shop/web"}
{"id":10,"src":"10.9.0.1","dst":"10.0.0.2","protocol":"tcp","dport":5432}
{"id":11,"src":"0.0.0.0","dst":"255.255.255.255","protocol":"udp","sport":68,"dport":67,"hook":"egress","endpoint":"shop/web"}
"#;
    let expected = r#"{"id":1,"verdict":"allow","reason":"policy-allow","rule":"tier default / NetworkPolicy shop/db / ingress[0]"}
{"id":"two","verdict":"deny","reason":"policy-deny","rule":"tier default / default action"}
{"id":[3, 3.0],"verdict":"deny","reason":"policy-deny","rule":"tier default / default action"}
{"id":null,"verdict":"allow","reason":"policy-allow","rule":"profile kns.shop"}
{"id":5,"verdict":"allow","reason":"no-policy","rule":null}
{"id":6,"verdict":"allow","reason":"within-pod","rule":null}
{"id":7,"verdict":"allow","reason":"policy-allow","rule":"tier default / NetworkPolicy shop/db / ingress[0]"}
{"id":8,"verdict":"allow","reason":"policy-allow","rule":"tier default / NetworkPolicy shop/db / ingress[0]"}
{"id":9,"verdict":"deny","reason":"spoofed-source","rule":null}
{"id":10,"verdict":"deny","reason":"policy-deny","rule":"tier default / default action"}
{"id":11,"verdict":"allow","reason":"always-allowed","rule":null}
"#;
    for engine in [EngineName::Reference, EngineName::Compiled] {
        assert_eq!(
            run(engine, packets),
            (OK, expected.to_owned(), String::new()),
            "{engine:?}"
        );
    }
}

#[test]
fn bad_lines_are_named_and_the_rest_is_answered() {
    let good = r#"{"id":0,"src":"10.0.0.1","dst":"192.0.2.1","protocol":"udp"}"#;
    for (line, id, error) in [
        (
            "{",
            "null",
            "this is no packet: EOF while parsing an object (column 1)",
        ),
        ("[1]", "null", "this is no packet"),
        (r#"{"id":1,"dst":"10.0.0.1","protocol":6}"#, "1", "src: missing"),
        (
            r#"{"id":1,"src":"x","dst":"10.0.0.1","protocol":6}"#,
            "1",
            "src: expected an IPv4 or IPv6 address, found \"x\"",
        ),
        (
            r#"{"id":1,"src":7,"dst":"10.0.0.1","protocol":6}"#,
            "1",
            "src: expected an IPv4 or IPv6 address, found 7",
        ),
        (
            r#"{"id":1,"src":"::1","dst":"10.0.0.1","protocol":6}"#,
            "1",
            "src ::1 and dst 10.0.0.1: expected addresses of one family",
        ),
        (
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2"}"#,
            "1",
            "protocol: missing",
        ),
        (
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":"tpc"}"#,
            "1",
            "protocol: expected tcp, udp, sctp, icmp, icmpv6, udplite or a number from 0 to 255, found \"tpc\"",
        ),
        (
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":256}"#,
            "1",
            "protocol: expected",
        ),
        (
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"dport":65536}"#,
            "1",
            "dport: expected a number from 0 to 65535, found 65536",
        ),
        (
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"sport":-1}"#,
            "1",
            "sport: expected a number",
        ),
        (
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":1,"icmp_type":256}"#,
            "1",
            "icmp_type: expected a number from 0 to 255, found 256",
        ),
        (
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"hook":"ingress"}"#,
            "1",
            "endpoint: missing",
        ),
        (
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"endpoint":"shop/db"}"#,
            "1",
            "hook: missing",
        ),
        (
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"hook":"in","endpoint":"shop/db"}"#,
            "1",
            "hook: expected \"ingress\" or \"egress\", found \"in\"",
        ),
        (
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"hook":"ingress","endpoint":"db"}"#,
            "1",
            "endpoint: expected namespace/name of a pod, found \"db\"",
        ),
        (
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"hook":"ingress","endpoint":"shop/bd"}"#,
            "1",
            "endpoint: shop/bd is no pod that policy applies to",
        ),
    ] {
        let (code, out, err) = run(EngineName::Compiled, &format!("{good}\n{line}\n{good}"));
        assert_eq!(code, ERROR, "{line}");
        assert!(
            err.starts_with(&format!("line 2: {error}")) && err.lines().count() == 1,
            "{line}: {err}"
        );
        let answers: Vec<serde_json::Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            (answers.len(), &answers[0]["verdict"], &answers[2]["id"]),
            (3, &"allow".into(), &0.into())
        );
        assert_eq!(answers[1]["id"].to_string(), id, "{line}");
        assert!(answers[1]["error"].as_str().unwrap().starts_with(error), "{out}");
        assert_eq!(answers[1].as_object().unwrap().len(), 2, "{out}");
    }
}

/// Gives its bytes one at a time, and tells what had been written when each line was over.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let end = self
            .0
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(self.0.len(), |end| end + 1);
        let (now, later) = self.0.split_at(end);
        into[..now.len()].copy_from_slice(now);
        self.0 = later;
        self.1 += 1;
        Ok(now.len())
    }
}

#[test]
fn whoever_waits_for_an_answer_gets_it() {
    /// Counts writes, each of which a reader at the other end would see.
    struct Seen(Vec<Vec<u8>>);
    impl Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let line = "{\"src\":\"10.0.0.1\",\"dst\":\"10.0.0.2\",\"protocol\":6}\n";
    let (mut seen, mut bad) = (Seen(Vec::new()), 0);
    let text = line.repeat(3);
    let allow = |_: &Packet| {
        Ok(Spoken {
            allow: true,
            reason: "policy-allow",
            rule: None,
        })
    };
    let done = judge_all(
        Slow(text.as_bytes(), 0),
        allow,
        &mut seen,
        &mut Vec::new(),
        &mut bad,
    )
    .unwrap();
    done.unwrap();
    assert_eq!((seen.0.len(), bad), (3, 0), "an answer for each line as it comes");

    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let done = judge_all(text.as_bytes(), allow, &mut Closed, &mut Vec::new(), &mut bad).unwrap();
    assert_eq!(written(done, OK), OK, "whoever closed the pipe has seen enough");
}
