//! Network security groups, as far as they decide about UDP between nodes. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::resource::Id;

/// `Microsoft.Network/networkSecurityGroups`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityGroup {
    pub id: Id,
    /// By priority, Azure's own last.
    pub rules: Vec<Rule>,
}

/// One rule, as far as UDP is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: String,
    pub priority: u32,
    pub inbound: bool,
    pub allows: bool,
    from: Peers,
    to: Peers,
    /// Source ports are named: only some of the packets are meant.
    some_sources: bool,
    ports: Vec<(u16, u16)>,
}

/// Whether a rule is about something; it cannot always be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    No,
    Maybe,
    Yes,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Peers {
    nets: Vec<IpNet>,
    /// Every address of the network.
    all: bool,
    /// Application security groups, whose members are not read.
    groups: bool,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    id: Id,
    #[serde(default)]
    properties: RawProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawProperties {
    security_rules: Vec<RawRule>,
    default_security_rules: Vec<RawRule>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRule {
    name: String,
    properties: RawRuleProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRuleProperties {
    protocol: String,
    access: String,
    direction: String,
    priority: u32,
    source_port_range: Option<String>,
    source_port_ranges: Vec<String>,
    destination_port_range: Option<String>,
    destination_port_ranges: Vec<String>,
    source_address_prefix: Option<String>,
    source_address_prefixes: Vec<String>,
    destination_address_prefix: Option<String>,
    destination_address_prefixes: Vec<String>,
    source_application_security_groups: Vec<Value>,
    destination_application_security_groups: Vec<Value>,
}

impl Peers {
    fn of(one: Option<String>, many: Vec<String>, groups: &[Value]) -> Self {
        let mut peers = Self {
            groups: !groups.is_empty(),
            ..Self::default()
        };
        for text in one.into_iter().chain(many) {
            if text == "*" || text.eq_ignore_ascii_case("VirtualNetwork") {
                peers.all = true;
            } else if let Ok(net) = text.parse::<IpNet>() {
                peers.nets.push(net);
            } else if let Ok(address) = text.parse::<IpAddr>() {
                peers.nets.push(address.into());
            }
            // Else it is a service's or the Internet's tag, and nodes are neither.
        }
        peers
    }

    fn about(&self, ip: IpAddr) -> About {
        if self.all || self.nets.iter().any(|net| net.contains(&ip)) {
            About::Yes
        } else if self.groups {
            About::Maybe
        } else {
            About::No
        }
    }
}

fn ports(one: Option<String>, many: Vec<String>) -> Vec<(u16, u16)> {
    let texts = one.into_iter().chain(many);
    let range = |text: String| {
        if text == "*" {
            return Some((0, u16::MAX));
        }
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    texts.filter_map(range).collect()
}

impl SecurityGroup {
    /// Reads ARM's answer.
    ///
    /// # Errors
    /// If a field is of another type than ARM's.
    pub fn read(body: &Value) -> Result<Self, serde_json::Error> {
        let raw = Raw::deserialize(body)?;
        let properties = raw.properties;
        let all = properties
            .security_rules
            .into_iter()
            .chain(properties.default_security_rules);
        let udp = all.filter(|rule| ["*", "udp"].contains(&rule.properties.protocol.to_lowercase().as_str()));
        let mut rules: Vec<Rule> = udp
            .map(
                |RawRule {
                     name,
                     properties: raw,
                 }| {
                    let sources = ports(raw.source_port_range, raw.source_port_ranges);
                    Rule {
                        name,
                        priority: raw.priority,
                        inbound: raw.direction.eq_ignore_ascii_case("Inbound"),
                        allows: raw.access.eq_ignore_ascii_case("Allow"),
                        from: Peers::of(
                            raw.source_address_prefix,
                            raw.source_address_prefixes,
                            &raw.source_application_security_groups,
                        ),
                        to: Peers::of(
                            raw.destination_address_prefix,
                            raw.destination_address_prefixes,
                            &raw.destination_application_security_groups,
                        ),
                        some_sources: !sources.contains(&(0, u16::MAX)),
                        ports: ports(raw.destination_port_range, raw.destination_port_ranges),
                    }
                },
            )
            .collect();
        rules.sort_by_key(|rule| rule.priority);
        Ok(Self { id: raw.id, rules })
    }

    /// The rules of one direction that are about a port.
    #[must_use]
    pub fn about(&self, inbound: bool, port: u16) -> Vec<&Rule> {
        let of_port = |rule: &&Rule| {
            rule.inbound == inbound
                && rule
                    .ports
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&port))
        };
        self.rules.iter().filter(of_port).collect()
    }
}

impl Rule {
    /// Whether it is about packets from the address.
    #[must_use]
    pub fn from(&self, ip: IpAddr) -> About {
        let about = self.from.about(ip);
        if self.some_sources {
            about.min(About::Maybe)
        } else {
            about
        }
    }

    /// Whether it is about packets to the address.
    #[must_use]
    pub fn to(&self, ip: IpAddr) -> About {
        self.to.about(ip)
    }
}

/// The rule that denies, for certain: the first one that is about it, unless one before may be and allows. `about`: for each of the rules.
#[must_use]
pub fn denied<'r>(rules: &[&'r Rule], about: impl Iterator<Item = About>) -> Option<&'r Rule> {
    for (rule, about) in rules.iter().zip(about) {
        match about {
            About::No => {}
            About::Maybe if !rule.allows => {}
            About::Maybe => return None,
            About::Yes => return (!rule.allows).then_some(*rule),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_rule_that_is_about_it_decides() {
        let rule = |priority: u32, access: &str, more: Value| {
            let mut rule = json!({"name": format!("r{priority}"), "properties": {"protocol": "*", "access": access, "direction": "Inbound",
                "priority": priority, "sourcePortRange": "*", "destinationPortRange": "*", "sourceAddressPrefix": "*",
                "destinationAddressPrefix": "*"}});
            rule["properties"]
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            rule
        };
        let judge = |rules: Vec<Value>| {
            let defaults = [
                rule(
                    65000,
                    "Allow",
                    json!({"sourceAddressPrefix": "VirtualNetwork", "destinationAddressPrefix": "VirtualNetwork"}),
                ),
                rule(65500, "Deny", json!({})),
            ];
            let body =
                json!({"id": "/g", "properties": {"securityRules": rules, "defaultSecurityRules": defaults}});
            let group = SecurityGroup::read(&body).unwrap();
            let rules = group.about(true, 8472);
            let (from, to) = ("10.240.0.4".parse().unwrap(), "10.240.0.5".parse().unwrap());
            let about: Vec<_> = rules
                .iter()
                .map(|rule| rule.from(from).min(rule.to(to)))
                .collect();
            denied(&rules, about.into_iter()).map(|rule| rule.name.clone())
        };
        let no = |priority: u32, more: Value| rule(priority, "Deny", more);
        assert_eq!(judge(vec![]), None);
        assert_eq!(judge(vec![no(4096, json!({}))]).as_deref(), Some("r4096"));
        assert_eq!(
            judge(vec![
                no(200, json!({})),
                rule(100, "Allow", json!({"destinationPortRange": "8000-9000"}))
            ]),
            None
        );
        let unrelated = [
            json!({"protocol": "Tcp"}),
            json!({"direction": "Outbound"}),
            json!({"destinationPortRange": null, "destinationPortRanges": ["80", "8473-9000"]}),
            json!({"sourceAddressPrefix": "Internet"}),
            json!({"sourceAddressPrefix": "AzureLoadBalancer"}),
            json!({"sourceAddressPrefix": null, "sourceAddressPrefixes": ["10.241.0.0/16"]}),
            json!({"destinationAddressPrefix": "10.240.0.6"}),
            // Whose members, and which packets, cannot be told.
            json!({"sourceAddressPrefix": null, "sourceApplicationSecurityGroups": [{"id": "/asg"}]}),
            json!({"sourcePortRange": "1000"}),
        ];
        for more in unrelated {
            assert_eq!(judge(vec![no(100, more.clone())]), None, "{more}");
        }
        for more in [
            json!({"protocol": "UDP", "destinationPortRange": "8472"}),
            json!({"sourceAddressPrefix": "10.240.0.0/16", "destinationAddressPrefix": "10.240.0.5"}),
            json!({"destinationPortRange": null, "destinationPortRanges": ["80", "8472-8473"]}),
        ] {
            assert_eq!(
                judge(vec![no(100, more.clone())]).as_deref(),
                Some("r100"),
                "{more}"
            );
        }
        let maybe = rule(
            90,
            "Allow",
            json!({"sourceAddressPrefix": null, "sourceApplicationSecurityGroups": [{"id": "/asg"}]}),
        );
        assert_eq!(judge(vec![maybe, no(100, json!({}))]), None);
    }
}
