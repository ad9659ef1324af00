//! nftables: endpoints found by verdict maps, one set for each selector, known connections accepted first.

use std::fmt::Write as _;

use super::netfilter::{POLICY, Sides, policies, set_name};
use crate::bench::rules::{self, Rule, Source};

/// For `nft -f`, instead of what was there.
pub(super) fn script(rules: &[Rule], sides: &[Sides]) -> String {
    let policies = policies(rules);
    let mut out = String::from("add table ip calico\ndelete table ip calico\ntable ip calico {\n");
    for (rule, i) in rules.iter().zip(0..) {
        let members: Vec<String> = rules::nets(&rule.source)
            .iter()
            .map(|net| {
                if net.prefix_len() == 32 {
                    net.addr().to_string()
                } else {
                    net.to_string()
                }
            })
            .collect();
        if !members.is_empty() {
            let interval = if matches!(rule.source, Source::Listed(_)) {
                "flags interval\n"
            } else {
                ""
            };
            let _ok = writeln!(
                out,
                "set {} {{\ntype ipv4_addr\n{interval}elements = {{ {} }}\n}}",
                set_name(i),
                members.join(", ")
            );
        }
    }
    for (map, chain) in [("from_wl", "fw"), ("to_wl", "tw")] {
        let verdicts: Vec<String> = sides
            .iter()
            .map(|side| format!("\"{0}\" : jump {chain}_{0}", side.ifname))
            .collect();
        let _ok = writeln!(
            out,
            "map {map} {{\ntype ifname : verdict\nelements = {{ {} }}\n}}",
            verdicts.join(", ")
        );
    }
    for (number, chunk) in policies.iter().enumerate() {
        let _ok = writeln!(out, "chain pi_{number} {{");
        for (rule, i) in chunk.iter().zip(number * POLICY..) {
            let _ok = writeln!(out, "{} meta mark set mark or 0x10000 return", criteria(rule, i));
        }
        out.push_str("}\n");
    }
    for side in sides {
        let name = side.ifname;
        endpoint(&mut out, &format!("fw_{name}"), 0);
        endpoint(
            &mut out,
            &format!("tw_{name}"),
            if side.governed { policies.len() } else { 0 },
        );
    }
    out.push_str(
        "chain prerouting {
type filter hook prerouting priority raw; policy accept;
iifname \"v*\" fib saddr . mark . iif oif 0 drop
}
chain forward {
type filter hook forward priority filter; policy accept;
meta mark set mark and 0xfff1ffff
iifname vmap @from_wl
oifname vmap @to_wl
}
}
",
    );
    out
}

/// The chain of one endpoint in one direction, with so many policies.
fn endpoint(out: &mut String, chain: &str, policies: usize) {
    let _ok = writeln!(
        out,
        "chain {chain} {{\nct state established,related accept\nct state invalid drop\n\
         meta mark set mark and 0xfffeffff"
    );
    for number in 0..policies {
        let _ok = writeln!(out, "jump pi_{number}\nmeta mark and 0x10000 == 0x10000 return");
    }
    out.push_str(if policies > 0 {
        "drop\n}\n"
    } else {
        "meta mark set mark or 0x10000\n}\n"
    });
}

fn criteria(rule: &Rule, i: usize) -> String {
    let (first, last) = rule.ports;
    let protocol = if rule.protocol == 17 { "udp" } else { "tcp" };
    let ports = if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    };
    let source = match &rule.source {
        Source::Anybody => String::new(),
        Source::Net(net) => format!("ip saddr {net} "),
        _ => format!("ip saddr @{} ", set_name(i)),
    };
    format!("{source}{protocol} dport {ports}")
}
