//! iptables rules and IP sets of the shape that Felix writes: a chain for each endpoint and direction, found by interface;
//! known connections accepted first; a chain for each policy, whose rules set the accept mark; one set for each selector.

use std::fmt::Write as _;

use super::netfilter::{POLICY, Sides, policies, set_name};
use crate::bench::rules::{self, Rule, Source};

/// For `ipset restore`.
pub(super) fn sets(rules: &[Rule]) -> String {
    let mut out = String::new();
    for (rule, i) in rules.iter().zip(0..) {
        let members = rules::nets(&rule.source);
        if members.is_empty() {
            continue;
        }
        let name = set_name(i);
        let _ok = writeln!(out, "create {name} hash:net family inet maxelem 1048576");
        for member in members {
            let _ok = writeln!(out, "add {name} {member}");
        }
    }
    out
}

/// For `iptables-restore`.
pub(super) fn script(rules: &[Rule], sides: &[Sides]) -> String {
    let policies = policies(rules);
    let mut out = String::from(
        "*raw
:cali-PREROUTING - [0:0]
-A PREROUTING -j cali-PREROUTING
-A cali-PREROUTING -j MARK --set-xmark 0x0/0xf0000
-A cali-PREROUTING -i v+ -j MARK --set-xmark 0x40000/0x40000
-A cali-PREROUTING -m mark --mark 0x40000/0x40000 -m rpfilter --validmark --invert -j DROP
COMMIT
*filter
:cali-FORWARD - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-to-wl-dispatch - [0:0]
:cali-pro-kns.ns - [0:0]
",
    );
    for side in sides {
        let _ok = writeln!(out, ":cali-fw-{0} - [0:0]\n:cali-tw-{0} - [0:0]", side.ifname);
    }
    for number in 0..policies.len() {
        let _ok = writeln!(out, ":cali-pi-{number} - [0:0]");
    }
    out.push_str(
        "-A FORWARD -j cali-FORWARD
-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -i v+ -j cali-from-wl-dispatch
-A cali-FORWARD -o v+ -j cali-to-wl-dispatch
-A cali-FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-pro-kns.ns -j MARK --set-xmark 0x10000/0x10000
-A cali-pro-kns.ns -m mark --mark 0x10000/0x10000 -j RETURN
",
    );
    for side in sides {
        let name = side.ifname;
        let _ok = writeln!(
            out,
            "-A cali-from-wl-dispatch -i {name} -g cali-fw-{name}\n-A cali-to-wl-dispatch -o {name} -g cali-tw-{name}"
        );
        endpoint(&mut out, &format!("cali-fw-{name}"), 0);
        endpoint(
            &mut out,
            &format!("cali-tw-{name}"),
            if side.governed { policies.len() } else { 0 },
        );
    }
    out.push_str("-A cali-from-wl-dispatch -j DROP\n-A cali-to-wl-dispatch -j DROP\n");
    for (number, chunk) in policies.iter().enumerate() {
        for (rule, i) in chunk.iter().zip(number * POLICY..) {
            let _ok = writeln!(
                out,
                "-A cali-pi-{number} {} -j MARK --set-xmark 0x10000/0x10000\n\
                 -A cali-pi-{number} -m mark --mark 0x10000/0x10000 -j RETURN",
                criteria(rule, i)
            );
        }
    }
    out.push_str("COMMIT\n");
    out
}

/// The chain of one endpoint in one direction, with so many policies.
fn endpoint(out: &mut String, chain: &str, policies: usize) {
    let _ok = writeln!(
        out,
        "-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A {chain} -m conntrack --ctstate INVALID -j DROP\n\
         -A {chain} -j MARK --set-xmark 0x0/0x10000"
    );
    if policies > 0 {
        let _ok = writeln!(out, "-A {chain} -j MARK --set-xmark 0x0/0x20000");
        for number in 0..policies {
            let _ok = writeln!(
                out,
                "-A {chain} -m mark --mark 0x0/0x20000 -j cali-pi-{number}\n\
                 -A {chain} -m mark --mark 0x10000/0x10000 -j RETURN"
            );
        }
        let _ok = writeln!(out, "-A {chain} -m mark --mark 0x0/0x20000 -j DROP");
    }
    let _ok = writeln!(
        out,
        "-A {chain} -j cali-pro-kns.ns\n\
         -A {chain} -m mark --mark 0x10000/0x10000 -j RETURN\n\
         -A {chain} -j DROP"
    );
}

fn criteria(rule: &Rule, i: usize) -> String {
    let (first, last) = rule.ports;
    let protocol = if rule.protocol == 17 { "udp" } else { "tcp" };
    let source = match &rule.source {
        Source::Anybody => String::new(),
        Source::Net(net) => format!(" -s {net}"),
        _ => format!(" -m set --match-set {} src", set_name(i)),
    };
    let ports = if first == last {
        first.to_string()
    } else {
        format!("{first}:{last}")
    };
    format!("-p {protocol}{source} -m multiport --destination-ports {ports}")
}
