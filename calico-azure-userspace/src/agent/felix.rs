//! Felix's settings, as far as there is something here that they set: what the agent was told itself (flags, `FELIX_…`), else what
//! FelixConfiguration `node.<name>` says, else `default`, else what Felix does.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use calico_azure_ebpf::abi::{
    DEFAULT_MARK_MASK, DEFAULT_VXLAN_PORT, TIMEOUT_GENERIC, TIMEOUT_ICMP, TIMEOUT_TCP_ESTABLISHED,
    TIMEOUT_TCP_FINS, TIMEOUT_TCP_HALF_OPEN, TIMEOUT_TCP_RESET, TIMEOUT_UDP,
};

use super::config::{MarkMask, SETTINGS_TIMEOUTS, Tunnels};
use crate::model::FelixConfiguration;

/// A server for HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub enabled: bool,
    pub host: String,
    pub port: u16,
}

/// The part of a [`Listener`] that was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldListener {
    pub enabled: Option<bool>,
    pub host: Option<String>,
    pub port: Option<u16>,
}

/// Timeouts of conntrack, by their place: `None`, Felix's own. As Felix reads them: names and durations with commas between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldTimeouts(BTreeMap<usize, Option<u64>>);

impl FromStr for ToldTimeouts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut told = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let expected = || format!("{pair:?}: expected a name and {DURATION}, like TCPSynSent=20s");
            let (name, value) = pair.split_once('=').ok_or_else(expected)?;
            let value = timeout(value.trim()).ok_or_else(expected)?;
            let name = name.trim().to_ascii_lowercase();
            match TIMEOUTS.iter().find(|(known, _)| *known == name) {
                Some((_, place)) => _ = told.insert(*place, value),
                // Felix's, for what there is nothing like here.
                None if name == "creationgraceperiod" => {}
                None => {
                    let names: Vec<&str> = TIMEOUTS.iter().map(|(name, _)| *name).collect();
                    return Err(format!(
                        "{pair:?}: expected one of {}, in any case",
                        names.join(", ")
                    ));
                }
            }
        }
        Ok(Self(told))
    }
}

/// `Any` or `Disabled`, in any case, as Felix reads it: whether pods may have source prefixes.
///
/// # Errors
/// Any other word.
pub fn source_spoofing(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "any" => Ok(true),
        "disabled" => Ok(false),
        _ => Err("expected Any or Disabled".to_owned()),
    }
}

/// A level of Felix's as a filter of log lines.
///
/// # Errors
/// Any other word.
pub fn severity(text: &str) -> Result<&'static str, String> {
    level(text).ok_or_else(|| format!("expected {LEVELS}"))
}

/// What the agent was told itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub interface_prefixes: Option<Vec<String>>,
    pub allow_ipip: Option<bool>,
    pub allow_vxlan: Option<bool>,
    pub vxlan_port: Option<u16>,
    pub mark_mask: Option<MarkMask>,
    pub health: ToldListener,
    pub metrics: ToldListener,
    pub timeouts: ToldTimeouts,
    /// As in the log filter; FelixConfiguration has no say then.
    pub log: Option<String>,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Felix {
    pub interface_prefixes: Vec<String>,
    pub tunnels: Tunnels,
    pub mark_mask: MarkMask,
    /// Nanoseconds, as in `abi::Config`.
    pub timeouts: [u64; 8],
    pub health: Listener,
    pub metrics: Listener,
    /// A filter of log lines.
    pub log: String,
}

/// Prefixes of Calico's own CNI plugin and of Azure's.
const PREFIXES: [&str; 2] = ["cali", "azv"];
const DURATION: &str = "a duration like 20s, 1h30m or 500ms, or Auto";
const LEVELS: &str = "Trace, Debug, Info, Warning, Error, Fatal or None";
const HEALTH_PORT: u16 = 9099;
const METRICS_PORT: u16 = 9091;

/// Names of `bpfConntrackTimeouts`, in lower case.
const TIMEOUTS: [(&str, usize); 7] = [
    ("tcpsynsent", TIMEOUT_TCP_HALF_OPEN),
    ("tcpestablished", TIMEOUT_TCP_ESTABLISHED),
    ("tcpfinsseen", TIMEOUT_TCP_FINS),
    ("tcpresetseen", TIMEOUT_TCP_RESET),
    ("udptimeout", TIMEOUT_UDP),
    ("icmptimeout", TIMEOUT_ICMP),
    ("generictimeout", TIMEOUT_GENERIC),
];

/// Settings that policy itself reads, or that are not for agents.
const ELSEWHERE: [&str; 5] = [
    "defaultendpointtohostaction",
    "workloadsourcespoofing",
    "failsafeinboundhostports",
    "failsafeoutboundhostports",
    "interfaceprefix",
];

impl Felix {
    /// What is in force by what the agent was told, and by the objects, the node's before that for all. Also what is wrong with them.
    #[must_use]
    pub fn of<'c>(told: &Told, objects: impl Iterator<Item = &'c FelixConfiguration>) -> (Self, Vec<String>) {
        let mut objects = Objects {
            all: objects.collect(),
            problems: Vec::new(),
        };
        let health = objects.listener(&told.health, "health", HEALTH_PORT);
        let metrics = objects.listener(&told.metrics, "prometheusmetrics", METRICS_PORT);
        let flag = |objects: &mut Objects<'_>, told: Option<bool>, key| {
            told.or_else(|| objects.get(key, truth, "true or false"))
                .unwrap_or(false)
        };
        let mut timeouts = SETTINGS_TIMEOUTS;
        for (name, place) in TIMEOUTS {
            let key = format!("bpfconntracktimeouts.{name}");
            let told = match told.timeouts.0.get(&place) {
                Some(told) => Some(*told),
                None => objects.get(&key, timeout, DURATION),
            };
            if let (Some(Some(told)), Some(timeout)) = (told, timeouts.get_mut(place)) {
                *timeout = told;
            }
        }
        let felix = Self {
            interface_prefixes: told.interface_prefixes.clone().unwrap_or_else(|| {
                let told = objects
                    .all
                    .iter()
                    .find_map(|object| object.interface_prefixes.clone());
                told.unwrap_or_else(|| PREFIXES.map(str::to_owned).into())
            }),
            tunnels: Tunnels {
                ipip: flag(&mut objects, told.allow_ipip, "allowipippacketsfromworkloads"),
                vxlan: flag(&mut objects, told.allow_vxlan, "allowvxlanpacketsfromworkloads"),
                vxlan_port: told.vxlan_port.unwrap_or_else(|| {
                    let told = objects.get("vxlanport", port, "a port");
                    told.unwrap_or(DEFAULT_VXLAN_PORT)
                }),
            },
            mark_mask: told.mark_mask.unwrap_or_else(|| {
                let told = objects.get(
                    "iptablesmarkmask",
                    parsed,
                    "a mask like 0xffff0000 without kube-proxy's 0xc000",
                );
                told.unwrap_or(MarkMask(DEFAULT_MARK_MASK))
            }),
            timeouts,
            health,
            metrics,
            log: told.log.clone().unwrap_or_else(|| {
                let told = objects.get("logseverityscreen", level, LEVELS);
                told.unwrap_or("info").to_owned()
            }),
        };
        (felix, objects.problems)
    }

    /// Settings that somebody made and that nothing here follows, as they are written to the log once.
    #[must_use]
    pub fn without_effect<'c>(objects: impl Iterator<Item = &'c FelixConfiguration>) -> BTreeSet<String> {
        let keys = objects.flat_map(|object| object.all.keys());
        keys.filter(|key| !is_followed(key)).cloned().collect()
    }
}

fn is_followed(key: &str) -> bool {
    const SCALARS: [&str; 11] = [
        "allowipippacketsfromworkloads",
        "allowvxlanpacketsfromworkloads",
        "vxlanport",
        "iptablesmarkmask",
        "logseverityscreen",
        "healthenabled",
        "healthhost",
        "healthport",
        "prometheusmetricsenabled",
        "prometheusmetricshost",
        "prometheusmetricsport",
    ];
    let timeout = key.strip_prefix("bpfconntracktimeouts.");
    SCALARS.contains(&key)
        || ELSEWHERE.contains(&key)
        || timeout.is_some_and(|name| TIMEOUTS.iter().any(|(known, _)| *known == name))
}

struct Objects<'c> {
    all: Vec<&'c FelixConfiguration>,
    problems: Vec<String>,
}

impl Objects<'_> {
    /// The first object that says something that can be understood decides; an empty text says nothing.
    fn get<T>(&mut self, key: &str, read: impl Fn(&str) -> Option<T>, expected: &str) -> Option<T> {
        for object in &self.all {
            let Some(text) = object.all.get(key).filter(|text| !text.is_empty()) else {
                continue;
            };
            match read(text) {
                Some(value) => return Some(value),
                None => self.problems.push(format!(
                    "FelixConfiguration {}: spec: {key}: {text:?}: expected {expected}; the setting is left out",
                    object.name
                )),
            }
        }
        None
    }

    fn listener(&mut self, told: &ToldListener, name: &str, usual: u16) -> Listener {
        let key = |part: &str| format!("{name}{part}");
        Listener {
            enabled: told
                .enabled
                .or_else(|| self.get(&key("enabled"), truth, "true or false"))
                .unwrap_or(false),
            host: told
                .host
                .clone()
                .or_else(|| self.get(&key("host"), parsed, "a host name or address"))
                .unwrap_or_else(|| "localhost".to_owned()),
            port: told
                .port
                .or_else(|| self.get(&key("port"), port, "a port"))
                .unwrap_or(usual),
        }
    }
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "t" | "on" => Some(true),
        "false" | "0" | "no" | "n" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// Felix's words. `None` inside: whatever Felix thinks best.
fn timeout(text: &str) -> Option<Option<u64>> {
    if text.eq_ignore_ascii_case("auto") {
        return Some(None);
    }
    duration(text)
        .filter(|duration| !duration.is_zero())
        .and_then(|duration| u64::try_from(duration.as_nanos()).ok())
        .map(Some)
}

/// As Go writes durations: numbers with units, one after the other.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit)?;
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = after;
    }
    (!text.trim().is_empty()).then_some(total)
}

fn level(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warning" => "warn",
        "error" | "fatal" => "error",
        "none" => "off",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, settings: &[(&str, &str)]) -> FelixConfiguration {
        FelixConfiguration {
            name: name.into(),
            all: settings
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..FelixConfiguration::default()
        }
    }

    #[test]
    fn what_the_agent_was_told_wins_then_the_nodes_object_then_that_for_all() {
        let node = object("node.n1", &[("healthport", "9001"), ("vxlanport", "8472")]);
        let all = object(
            "default",
            &[
                ("healthport", "9002"),
                ("healthenabled", "true"),
                ("prometheusmetricsport", "9003"),
                ("allowipippacketsfromworkloads", "True"),
                ("iptablesmarkmask", "0x0fff0000"),
                ("logseverityscreen", "Warning"),
            ],
        );
        let told = Told {
            vxlan_port: Some(4790),
            metrics: ToldListener {
                port: Some(9004),
                ..ToldListener::default()
            },
            ..Told::default()
        };
        let (felix, problems) = Felix::of(&told, [&node, &all].into_iter());
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!((felix.health.enabled, felix.health.port), (true, 9001));
        assert_eq!((felix.metrics.enabled, felix.metrics.port), (false, 9004));
        assert_eq!(felix.metrics.host, "localhost");
        assert_eq!((felix.tunnels.ipip, felix.tunnels.vxlan), (true, false));
        assert_eq!(felix.tunnels.vxlan_port, 4790);
        assert_eq!(felix.mark_mask, MarkMask(0x0fff_0000));
        assert_eq!(felix.log, "warn");
    }

    #[test]
    fn a_setting_that_is_not_understood_is_reported_and_the_next_one_counts() {
        let node = object(
            "node.n1",
            &[
                ("healthport", "many"),
                ("bpfconntracktimeouts.udptimeout", "1 week"),
            ],
        );
        let all = object(
            "default",
            &[
                ("healthport", "9002"),
                ("bpfconntracktimeouts.udptimeout", "1m30s"),
            ],
        );
        let (felix, problems) = Felix::of(&Told::default(), [&node, &all].into_iter());
        assert_eq!(felix.health.port, 9002);
        assert_eq!(felix.timeouts[TIMEOUT_UDP], 90_000_000_000);
        assert_eq!(problems.len(), 2);
        assert!(
            problems[0].contains("node.n1") && problems[0].contains("\"many\""),
            "{problems:?}"
        );
    }

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("20s", 20_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
        ] {
            assert_eq!(timeout(text), Some(Some(nanos)), "{text}");
        }
        assert_eq!(timeout("Auto"), Some(None));
        for text in [
            "",
            "20",
            "s",
            "20 s",
            "-1s",
            "1w",
            "0s",
            "1..5s",
            "99999999999999999999h",
        ] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }

    #[test]
    fn timeouts_of_the_environment_win() {
        let all = object(
            "default",
            &[
                ("bpfconntracktimeouts.udptimeout", "1m30s"),
                ("bpfconntracktimeouts.icmptimeout", "7s"),
            ],
        );
        let told = Told {
            timeouts: "UDPTimeout=2m, tcpSynSent=Auto,CreationGracePeriod=10s"
                .parse()
                .unwrap(),
            ..Told::default()
        };
        let (felix, problems) = Felix::of(&told, [&all].into_iter());
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(felix.timeouts[TIMEOUT_UDP], 120_000_000_000);
        assert_eq!(felix.timeouts[TIMEOUT_ICMP], 7_000_000_000);
        assert_eq!(
            felix.timeouts[TIMEOUT_TCP_HALF_OPEN],
            SETTINGS_TIMEOUTS[TIMEOUT_TCP_HALF_OPEN]
        );
        for (text, said) in [
            ("UDPTimeout", "UDPTimeout"),
            ("UDPTimeout=1w", "a duration like"),
            ("QUICTimeout=1s", "expected one of tcpsynsent"),
        ] {
            let error = text.parse::<ToldTimeouts>().unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(
            (source_spoofing("any"), severity("Fatal")),
            (Ok(true), Ok("error"))
        );
        assert!(source_spoofing("yes").is_err() && severity("loud").is_err());
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let all = object(
            "default",
            &[
                ("bgpsomething", "1"),
                ("healthport", "1"),
                ("bpfconntracktimeouts.creationgraceperiod", "10s"),
            ],
        );
        let named: Vec<String> = Felix::without_effect([&all].into_iter()).into_iter().collect();
        assert_eq!(
            named,
            ["bgpsomething", "bpfconntracktimeouts.creationgraceperiod"]
        );
    }
}
