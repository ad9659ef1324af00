//! What the policies say, by the reference evaluator over the very files that the agents read.

use std::net::IpAddr;
use std::path::Path;

use anyhow::bail;
use calico_azure_userspace::model::load::load_paths;
use calico_azure_userspace::policy::reference::{Flow, Oracle};
use calico_azure_userspace::policy::{Direction, Event, Store};

use crate::lab::probe::Kind;

/// What must be seen on the wire, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) allow: bool,
    /// The pod whose policy denies; of an allowed flow, whoever judges last.
    pub(super) by: Option<(Direction, String)>,
    pub(super) rule: String,
}

/// The policies as they are in the watched directory now.
pub(super) struct Policies {
    store: Store,
}

impl Policies {
    pub(super) fn load(dir: &Path) -> anyhow::Result<Self> {
        let loaded = load_paths(&[dir.to_owned()]);
        if let Some(problem) = loaded.problems.first() {
            bail!("{problem}");
        }
        let mut store = Store::default();
        for resource in loaded.resources {
            store.apply(Event::Upsert(resource));
        }
        Ok(Self { store })
    }

    pub(super) fn oracle(&self) -> Oracle<'_> {
        Oracle::new(&self.store)
    }
}

/// Judges the first packet of a probe.
pub(super) fn expected(oracle: &Oracle<'_>, src: IpAddr, dst: IpAddr, kind: Kind) -> Expected {
    let (protocol, dport) = match kind {
        Kind::Tcp(port) => (6, port),
        Kind::Udp(port) => (17, port),
        Kind::Icmp if dst.is_ipv6() => (58, 128 << 8),
        Kind::Icmp => (1, 8 << 8),
    };
    let path = oracle.path(&Flow {
        src,
        dst,
        protocol,
        sport: 0,
        dport,
    });
    let egress = path
        .egress
        .map(|(pod, verdict)| (Direction::Egress, pod, verdict));
    let ingress = path
        .ingress
        .map(|(pod, verdict)| (Direction::Ingress, pod, verdict));
    let mut sides = egress.into_iter().chain(ingress);
    let decides = if path.allow {
        sides.last()
    } else {
        sides.find(|(_, _, verdict)| !verdict.allow)
    };
    match decides {
        Some((direction, pod, verdict)) => Expected {
            allow: path.allow,
            by: Some((direction, pod)),
            rule: verdict.rule.to_string(),
        },
        None => Expected {
            allow: path.allow,
            by: None,
            rule: "no pod's policy has a say".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{LabDir, Source, plan};

    /// The example with made-up pod addresses: IPv4 and IPv6 end in the pod's position.
    struct Example {
        _dir: LabDir,
        policies: Policies,
        pods: Vec<String>,
    }

    impl Example {
        fn load() -> Self {
            let dir = LabDir::create().unwrap();
            let source = Source::new(&dir);
            let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop");
            let pods = source.import(&shop).unwrap();
            for (number, pod) in pods.iter().enumerate() {
                let running = pod.running(&[Self::v4(number), Self::v6(number)]);
                source.write_objects(&pod.file(), &[running]).unwrap();
            }
            let policies = Policies::load(source.dir()).unwrap();
            Self {
                _dir: dir,
                policies,
                pods: pods.iter().map(|pod| pod.key()).collect(),
            }
        }

        fn v4(number: usize) -> IpAddr {
            [10, 244, 1, u8::try_from(number).unwrap() + 2].into()
        }

        fn v6(number: usize) -> IpAddr {
            format!("fd00:10:244:1::{}", number + 2).parse().unwrap()
        }

        /// Both families, which must agree.
        fn ask(&self, src: &str, dst: &str, kind: Kind) -> Expected {
            let number = |name: &str| self.pods.iter().position(|pod| pod == name).unwrap();
            let (src, dst) = (number(src), number(dst));
            let oracle = self.policies.oracle();
            let v4 = expected(&oracle, Self::v4(src), Self::v4(dst), kind);
            let v6 = expected(&oracle, Self::v6(src), Self::v6(dst), kind);
            assert_eq!(v4.allow, v6.allow, "{src} -> {dst} {kind}");
            v4
        }
    }

    #[test]
    fn the_example_allows_what_its_readme_draws() {
        let example = Example::load();
        for (src, dst, kind) in [
            ("shop/frontend-1", "shop/api-2", Kind::Tcp(8080)),
            ("shop/api-1", "data/db", Kind::Tcp(5432)),
            ("shop/api-2", "data/cache", Kind::Tcp(6379)),
            ("shop/api-1", "ops/monitor", Kind::Udp(8125)),
            ("ops/monitor", "data/db", Kind::Tcp(9100)),
            ("ops/batch", "shop/frontend-2", Kind::Tcp(80)),
            ("shop/frontend-1", "ops/batch", Kind::Icmp),
        ] {
            let expected = example.ask(src, dst, kind);
            assert!(expected.allow, "{src} -> {dst} {kind}: {}", expected.rule);
        }
        for (src, dst, kind) in [
            ("shop/frontend-1", "data/db", Kind::Tcp(5432)),
            ("shop/api-1", "data/db", Kind::Tcp(5433)),
            ("shop/api-1", "data/db", Kind::Icmp),
            ("data/db", "shop/api-1", Kind::Tcp(8080)),
            ("data/cache", "data/db", Kind::Tcp(5432)),
            ("ops/batch", "data/cache", Kind::Tcp(6379)),
            ("ops/batch", "data/db", Kind::Tcp(9100)),
            ("shop/frontend-1", "ops/monitor", Kind::Udp(8125)),
        ] {
            let expected = example.ask(src, dst, kind);
            assert!(!expected.allow, "{src} -> {dst} {kind}: {}", expected.rule);
        }
    }

    #[test]
    fn the_security_tier_stops_threats_and_lets_the_rest_pass() {
        let example = Example::load();
        let oracle = example.policies.oracle();
        let from = |pod: &str, dst: IpAddr| {
            let number = example.pods.iter().position(|p| p == pod).unwrap();
            let src = if dst.is_ipv6() {
                Example::v6(number)
            } else {
                Example::v4(number)
            };
            expected(&oracle, src, dst, Kind::Tcp(443))
        };
        for pod in &example.pods {
            for threat in [IpAddr::from(plan::THREAT_V4), plan::THREAT_V6.into()] {
                let expected = from(pod, threat);
                assert!(!expected.allow, "{pod}");
                assert!(
                    expected.rule.contains("security.threats"),
                    "{pod}: {}",
                    expected.rule
                );
                assert!(expected.rule.ends_with("egress[1]"), "{pod}: {}", expected.rule);
            }
        }
        for outside in [IpAddr::from(plan::OUTSIDE_V4), plan::OUTSIDE_V6.into()] {
            assert!(from("shop/api-1", outside).allow, "payments at {outside}");
            assert!(!from("shop/frontend-1", outside).allow, "{outside}");
        }
    }
}
