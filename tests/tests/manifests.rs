//! Small realistic manifests, each with what is expected of it, judged by the reference and by the compiled tables.
//!
//! Every file in `tests/corpus/manifests` is read together with `cluster.yaml` there. Its first lines say what must hold:
//!
//! ```text
//! # expect: allow shop/web -> shop/db tcp 5432          from and to are pods or addresses
//! # expect: deny 203.0.113.7 -> shop/web udp 53 from 53  with a source port
//! # expect: deny dev/shell -> shop/web icmp 8/0          type and code; other protocols by number, without a port
//! # expect: staged deny dev/shell -> shop/web tcp 80     if the staged policies were enforced
//! # expect: error spec.selector                          this field is reported, and no other
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use calico_azure_ebpf::abi::Reason;
use calico_azure_userspace::model::Severity;
use calico_azure_userspace::model::load::load_paths;
use calico_azure_userspace::policy::generate::probes;
use calico_azure_userspace::policy::pending::pending;
use calico_azure_userspace::policy::reference::{Flow, Leg, Oracle, PathVerdict, Stage, Verdict};
use calico_azure_userspace::policy::topology::Topology;
use calico_azure_userspace::policy::{Compiler, Direction, Output, Store, lookup};

/// At least so many manifests and expectations, so that none gets lost.
const MANIFESTS: usize = 45;
const EXPECTATIONS: usize = 190;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/manifests")
}

/// One line.
#[derive(Debug, PartialEq)]
enum Expect {
    Error(String),
    Verdict { staged: bool, allow: bool, flow: Flow },
}

fn expectations(text: &str, store: &Store) -> Result<Vec<Expect>> {
    let lines = text.lines().map_while(|line| line.strip_prefix("# expect: "));
    lines
        .map(|line| parse(line, store).with_context(|| format!("`# expect: {line}`")))
        .collect()
}

fn parse(line: &str, store: &Store) -> Result<Expect> {
    let mut words = line.split_whitespace();
    let mut next = |what: &'static str| words.next().context(what);
    let mut word = next("expected allow, deny, staged or error")?;
    if word == "error" {
        return Ok(Expect::Error(next("expected a field")?.to_owned()));
    }
    let staged = word == "staged";
    if staged {
        word = next("expected allow or deny")?;
    }
    let allow = match word {
        "allow" => true,
        "deny" => false,
        other => bail!("expected allow or deny, found {other}"),
    };
    let src = next("expected where from")?;
    ensure!(next("expected ->")? == "->", "expected ->");
    let dst = next("expected where to")?;
    let protocol = match next("expected a protocol")? {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "icmpv6" => 58,
        "sctp" => 132,
        number => number.parse()?,
    };
    let dport = match words.next().map(|port| (port, port.split_once('/'))) {
        Some((_, Some((kind, code)))) => u16::from_be_bytes([kind.parse()?, code.parse()?]),
        Some((port, None)) => port.parse()?,
        None => 0,
    };
    let sport = match (words.next(), words.next()) {
        (Some("from"), Some(port)) => port.parse()?,
        (None, _) if matches!(protocol, 6 | 17 | 132) => 40_000,
        (None, _) => 0,
        (Some(other), _) => bail!("expected `from PORT` or the end, found {other}"),
    };
    ensure!(words.next().is_none(), "expected the end of the line");
    let v6 = src.contains(':') || dst.contains(':');
    let flow = Flow {
        src: address(src, v6, store)?,
        dst: address(dst, v6, store)?,
        protocol,
        sport,
        dport,
    };
    Ok(Expect::Verdict { staged, allow, flow })
}

fn address(text: &str, v6: bool, store: &Store) -> Result<IpAddr> {
    let Some((namespace, name)) = text.split_once('/') else {
        return text.parse().context("expected a pod or an address");
    };
    let pod = store
        .pod(namespace, name)
        .with_context(|| format!("there is no pod {text}"))?;
    let mut own = pod.ips.iter().filter(|ip| ip.is_ipv6() == v6);
    own.next()
        .copied()
        .context("the pod has no address of the family")
}

/// The policies of a manifest, by both engines.
struct Both<'a> {
    oracle: Oracle<'a>,
    /// As if all pods were on one node.
    local: &'a Store,
    output: Output,
}

impl<'a> Both<'a> {
    fn new(oracle: Oracle<'a>, local: &'a Store) -> Result<Self> {
        let output = Compiler::default().compile(local)?;
        Ok(Self {
            oracle,
            local,
            output,
        })
    }

    /// The reference's verdict of the whole way, after the tables have agreed about each pod on it.
    fn judge(&self, flow: &Flow) -> Result<bool> {
        let path = self.oracle.path(flow);
        for (stage, side) in [
            (Stage::PodEgress, &path.egress),
            (Stage::PodIngress, &path.ingress),
        ] {
            let Some((name, verdict)) = side else { continue };
            let direction = match stage {
                Stage::PodEgress => Direction::Egress,
                _ => Direction::Ingress,
            };
            self.compare(name, direction, flow, verdict)?;
        }
        Ok(path.allow)
    }

    fn compare(&self, pod: &str, direction: Direction, flow: &Flow, verdict: &Verdict) -> Result<()> {
        let topology = Topology::of(self.local);
        let mut endpoints = topology.endpoints.iter();
        let is_pod = |namespace: &str, name: &str| pod.split_once('/') == Some((namespace, name));
        let endpoint = endpoints.find(|endpoint| is_pod(&endpoint.pod.namespace, &endpoint.pod.name));
        let ifindex = endpoint.and_then(|endpoint| endpoint.ifindex);
        let ifindex = ifindex.with_context(|| format!("{pod} has no interface"))?;
        let compiled = lookup::verdict(&self.output.desired, ifindex, direction, &flow.probe(direction));
        let rule = self.output.rules.get(&compiled.rule);
        ensure!(
            (compiled.reason == Reason::PolicyAllow, compiled.log, rule)
                == (verdict.allow, verdict.log, Some(&verdict.rule)),
            "the tables say {compiled:?} by {rule:?} of {flow:?}, {direction:?} of {pod}: {verdict:#?}"
        );
        Ok(())
    }

    /// Packets aimed at every rule.
    fn compare_all(&self, seed: u64) -> Result<usize> {
        let oracle = Oracle::new(self.local);
        let cases = probes(self.local, seed, 4);
        for case in &cases {
            let pod = self.local.pod(&case.namespace, &case.pod).context("no pod")?;
            let (allow, log, rule) = oracle.decide(pod, case.direction, &case.probe);
            let compiled = lookup::verdict(&self.output.desired, case.ifindex, case.direction, &case.probe);
            let named = self.output.rules.get(&compiled.rule);
            ensure!(
                (compiled.reason == Reason::PolicyAllow, compiled.log, named) == (allow, log, Some(&rule)),
                "{case:?}: {compiled:?} by {named:?}, reference: {rule:?}"
            );
        }
        Ok(cases.len())
    }
}

/// Who decided what, in a line each.
fn said(path: &PathVerdict) -> String {
    let legs = path.legs.iter().map(
        |Leg {
             stage, at, verdict, ..
         }| {
            let word = if verdict.allow { "allows" } else { "denies" };
            format!("\n    {stage} at {at} {word} it by {:?}", verdict.rule)
        },
    );
    legs.collect()
}

/// Checks one file; how many expectations and packets there were.
fn check(file: &Path) -> Result<(usize, usize)> {
    let loaded = load_paths(&[directory().join("cluster.yaml"), file.to_owned()]);
    let missing_tiers = loaded.missing_tiers();
    let problems: Vec<_> = loaded.problems.iter().chain(&missing_tiers).collect();
    let store: Store = loaded.resources.into_iter().collect();
    let expected = expectations(&std::fs::read_to_string(file)?, &store)?;
    for problem in problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
    {
        let field = problem.field.clone().unwrap_or_default();
        ensure!(
            expected.contains(&Expect::Error(field)),
            "not expected: {problem}"
        );
    }
    let local = store.on_one_node();
    let enforced = Both::new(Oracle::new(&store), &local)?;
    // What is pending has other policies, and the same pods.
    let staged_local = pending(&local).unwrap_or_else(|| local.clone());
    let staged = Both::new(Oracle::pending(&store), &staged_local)?;
    for expect in &expected {
        match expect {
            Expect::Error(field) => {
                let mut fields = problems.iter().filter_map(|problem| problem.field.as_ref());
                ensure!(
                    fields.any(|found| found == field),
                    "nothing is reported at {field}"
                );
            }
            Expect::Verdict {
                staged: of_staged,
                allow,
                flow,
            } => {
                let engines = if *of_staged { &staged } else { &enforced };
                let allowed = engines.judge(flow)?;
                ensure!(
                    allowed == *allow,
                    "{expect:?}: {}",
                    said(&engines.oracle.path(flow))
                );
            }
        }
    }
    let packets = enforced.compare_all(7)? + staged.compare_all(8)?;
    Ok((expected.len(), packets))
}

#[test]
fn every_manifest_means_what_it_says() -> Result<()> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    files.sort();
    let (mut manifests, mut expectations, mut packets) = (0, 0, 0);
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("cluster.yaml")) {
        manifests += 1;
        match check(file) {
            Ok((0, _)) => wrong.push(format!("{}: expects nothing", file.display())),
            Ok((of_file, of_rules)) => {
                expectations += of_file;
                packets += of_rules;
            }
            Err(error) => wrong.push(format!("{}: {error:#}", file.display())),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n\n"));
    println!("{manifests} manifests, {expectations} expectations, {packets} packets");
    assert!(manifests >= MANIFESTS && expectations >= EXPECTATIONS);
    Ok(())
}

#[test]
fn an_expectation_that_cannot_be_read_is_an_error() {
    let store = Store::default();
    for line in [
        "",
        "perhaps 10.0.0.1 -> 10.0.0.2 tcp 80",
        "allow 10.0.0.1 10.0.0.2 tcp 80",
        "allow 10.0.0.1 -> no/body tcp 80",
        "allow 10.0.0.1 -> 10.0.0.2 tcp 80000",
        "allow 10.0.0.1 -> 10.0.0.2 tcp 80 to 90",
        "allow 10.0.0.1 -> 10.0.0.2 tcp 80 from 90 now",
        "staged 10.0.0.1 -> 10.0.0.2 tcp 80",
        "error",
    ] {
        assert!(parse(line, &store).is_err(), "{line:?}");
    }
}
