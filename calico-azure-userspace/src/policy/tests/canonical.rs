//! A result with its ids replaced by what they stand for, so that results with different pasts can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_azure_ebpf::abi::{
    CLASS_DEFAULT_V4, CLASS_DEFAULT_V6, LEVEL_TABLE, OwnerKey4, OwnerKey6, host_set, word,
};

use crate::policy::{Desired, Output, Prefix4, Prefix6, Problem, RuleRef, SetInfo};

/// Who is where, by which sets.
type Endpoint = (String, Vec<IpAddr>, String, String);

/// Everything in an output. Classes are named by the first of their prefixes, sets by the first of their users, tables
/// by their entries.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Canonical {
    endpoints: BTreeMap<u32, Endpoint>,
    hosts: BTreeMap<u32, (String, Vec<String>)>,
    owners: (BTreeSet<OwnerKey4>, BTreeSet<OwnerKey6>),
    routes: (BTreeMap<Prefix4, u32>, BTreeMap<Prefix6, u32>),
    classes: BTreeMap<String, String>,
    policy: BTreeMap<(String, String), String>,
    sets: BTreeMap<String, SetInfo>,
    rules: BTreeSet<RuleRef>,
    problems: Vec<Problem>,
    ports: usize,
    alike_from: u16,
}

impl Canonical {
    pub(super) fn of(output: &Output) -> Self {
        let Output {
            desired,
            rules,
            problems,
            sets,
        } = output;
        let prefixes = prefixes(desired);
        let mut classes = BTreeMap::from([
            (CLASS_DEFAULT_V4, "v4".to_owned()),
            (CLASS_DEFAULT_V6, "v6".to_owned()),
        ]);
        for (prefix, class) in &prefixes {
            classes.entry(*class).or_insert_with(|| prefix.clone());
        }
        let mut names: BTreeMap<u32, String> = BTreeMap::new();
        for (ifindex, endpoint) in &desired.endpoints {
            for (set, direction) in [(endpoint.ingress, "ingress"), (endpoint.egress, "egress")] {
                names
                    .entry(set)
                    .or_insert_with(|| format!("{ifindex} {direction}"));
            }
        }
        let hosts = hosts(desired, &classes, &mut names);
        let tables = Tables { desired, rules };
        let policy = desired.policy.iter().map(|(key, word)| {
            assert_eq!((word >> 32) as u32, word::table_check(key.set, key.class));
            let pair = (names[&key.set].clone(), classes[&key.class].clone());
            if word::table_hints(*word) & word::hint::SET != 0 {
                return (pair, names[&word::table_id(*word)].clone());
            }
            (pair, tables.text(word::table_id(*word), word::table_hints(*word)))
        });
        let endpoints = desired.endpoints.iter().map(|(ifindex, endpoint)| {
            let sets = [endpoint.ingress, endpoint.egress].map(|set| names[&set].clone());
            let [ingress, egress] = sets;
            let endpoint = (endpoint.pod.clone(), endpoint.addresses.clone(), ingress, egress);
            (*ifindex, endpoint)
        });
        assert_eq!(rules.len(), rules.values().collect::<BTreeSet<_>>().len());
        Self {
            endpoints: endpoints.collect(),
            hosts,
            owners: (
                desired.owners4.keys().copied().collect(),
                desired.owners6.keys().copied().collect(),
            ),
            routes: (desired.routes4.clone(), desired.routes6.clone()),
            classes: prefixes
                .into_iter()
                .map(|(prefix, class)| (prefix, classes[&class].clone()))
                .collect(),
            policy: policy.collect(),
            sets: sets
                .iter()
                .map(|(id, info)| (names[id].clone(), info.clone()))
                .collect(),
            rules: rules.values().cloned().collect(),
            problems: problems.clone(),
            ports: desired.ports.len(),
            alike_from: desired.alike_from,
        }
    }
}

/// Names the sets of host endpoints, and those that they lead to, by the first that has them.
fn hosts(
    desired: &Desired,
    classes: &BTreeMap<u32, String>,
    names: &mut BTreeMap<u32, String>,
) -> BTreeMap<u32, (String, Vec<String>)> {
    let mut hosts = BTreeMap::new();
    for (ifindex, host) in &desired.hosts {
        for (stage, set) in host.sets.iter().enumerate() {
            // What pods may send to the host is no set.
            if *set == 0 || stage == host_set::TO_HOST {
                continue;
            }
            names
                .entry(*set)
                .or_insert_with(|| format!("{ifindex} stage {stage}"));
        }
    }
    for host in desired.hosts.values() {
        for set in host.sets[..host_set::TO_HOST].iter().filter(|set| **set != 0) {
            let entries = desired.policy.iter().filter(|(key, _)| key.set == *set);
            let sorted: BTreeMap<&str, u32> = entries
                .map(|(key, word)| (classes[&key.class].as_str(), word::table_id(*word)))
                .collect();
            for (class, inner) in sorted {
                let name = format!("{} near {class}", names[set]);
                names.entry(inner).or_insert(name);
            }
        }
    }
    for (ifindex, host) in &desired.hosts {
        let (sets, action) = host.sets.split_at(host_set::TO_HOST);
        let sets = sets.iter().map(|set| names.get(set).cloned().unwrap_or_default());
        let action = action.iter().map(|action| format!("action {action}"));
        hosts.insert(*ifindex, (host.name.clone(), sets.chain(action).collect()));
    }
    hosts
}

fn prefixes(desired: &Desired) -> BTreeMap<String, u32> {
    let single4 = desired
        .class4
        .iter()
        .map(|(ip, class)| (format!("4 {ip:08x}/32"), *class));
    let wide4 = desired
        .cidr4
        .iter()
        .map(|((ip, len), class)| (format!("4 {ip:08x}/{len}"), *class));
    let single6 = desired
        .class6
        .iter()
        .map(|(ip, class)| (format!("6 {ip:08x?}/128"), *class));
    let wide6 = desired
        .cidr6
        .iter()
        .map(|((ip, len), class)| (format!("6 {ip:08x?}/{len}"), *class));
    single4.chain(wide4).chain(single6).chain(wide6).collect()
}

struct Tables<'a> {
    desired: &'a Desired,
    rules: &'a BTreeMap<u32, RuleRef>,
}

impl Tables<'_> {
    /// Every entry of the table, and of those it leads to.
    fn text(&self, table: u32, hints: u8) -> String {
        let entries = self.desired.ports.iter().filter(|(key, _)| key.table == table);
        let mut text = format!("hints {hints:#x}");
        let mut default = false;
        for (key, decision) in entries {
            assert_eq!(word::decision_table(*decision), table);
            default |= key.level == LEVEL_TABLE;
            text += &format!("\n{}:{}:{} ", key.level, key.protocol, key.port);
            if word::decision_leads(*decision) {
                let next = word::decision_next(*decision);
                text += &format!("({})", self.text(word::table_id(next), word::table_hints(next)));
            } else if word::decision_goes_on(*decision) {
                text += &format!("goes on {}", word::decision_logs(*decision));
            } else {
                let allow = word::decision_allows(*decision);
                let log = word::decision_logs(*decision);
                text += &format!("{allow} {log} {}", self.rules[&word::decision_rule(*decision)]);
            }
        }
        assert!(default, "table {table} has no default");
        text
    }
}
