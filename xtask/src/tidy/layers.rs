//! The dependency direction inside each crate, as the architecture draws it: a module uses only layers below its own.

use super::lex::{code_only, words};
use super::{Finding, Source};

/// One crate's layers, lowest first. Modules of one layer do not use each other.
struct Layers {
    src: &'static str,
    order: &'static [&'static [&'static str]],
    /// The only module that names aya.
    aya: &'static str,
    /// The only directories that name what a client of Kubernetes or of Azure needs.
    clients: &'static [&'static str],
    /// The only other file with an event loop.
    server: &'static str,
}

/// Crates of an event loop and of what runs on it.
const CLIENT: [&str; 8] = [
    "axum",
    "http_body_util",
    "hyper_rustls",
    "hyper_util",
    "k8s_openapi",
    "rustls",
    "tokio",
    "tower",
];

const CRATES: [Layers; 2] = [
    Layers {
        src: "calico-azure-userspace/src/",
        order: &[
            &["selector"],
            &["model"],
            &["policy"],
            &["analysis", "dataplane", "sources", "azure", "observe"],
            &["agent", "judge"],
            &["cli"],
        ],
        aya: "dataplane",
        clients: &["sources/kube/", "azure/arm/"],
        server: "agent/serve",
    },
    Layers {
        src: "calico-azure-ebpf/src/",
        order: &[&["abi"], &["packet"], &["verdict", "yardstick"], &["bpf"]],
        aya: "bpf",
        clients: &[],
        server: "nowhere",
    },
];

/// Every use of a module that is not below the file's own.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let Some((layers, inside)) = CRATES
        .iter()
        .find_map(|layers| Some((layers, source.path.strip_prefix(layers.src)?.strip_suffix(".rs")?)))
    else {
        return Vec::new();
    };
    // The roots and the bins join everything.
    let mut modules: Vec<&str> = inside.split('/').collect();
    let Some(&own) = modules
        .first()
        .filter(|first| !matches!(**first, "lib" | "main" | "bin"))
    else {
        return Vec::new();
    };
    if modules.last() == Some(&"mod") {
        modules.pop();
    }
    let finding = |line: usize, what: String| Finding {
        path: source.path.clone(),
        line,
        what,
        warning: false,
    };
    let Some(own_rank) = layers.rank(own) else {
        let what =
            format!("`{own}` is in no layer: add it to xtask/src/tidy/layers.rs and to ARCHITECTURE.md");
        return vec![finding(0, what)];
    };
    // Unit tests, last in a file, may compare across layers.
    let code = code_only(&source.text);
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let mut findings: Vec<Finding> = used_modules(code, modules.len())
        .into_iter()
        .filter(|(_, used)| used != own && layers.rank(used).is_some_and(|rank| rank >= own_rank))
        .map(|(line, used)| {
            finding(
                line,
                format!("`{own}` uses `{used}`, which is not below it: {}", layers.drawn()),
            )
        })
        .collect();
    if own != layers.aya {
        let aya = words(code).filter(|(_, word)| *word == "aya" || word.starts_with("aya_"));
        let only = layers.aya;
        findings.extend(
            aya.map(|(line, word)| finding(line, format!("names `{word}`, which only `{only}` may do"))),
        );
    }
    if !layers.clients.iter().any(|client| inside.starts_with(client)) {
        let only: Vec<&str> = layers
            .clients
            .iter()
            .map(|client| client.trim_end_matches('/'))
            .collect();
        let only = if only.is_empty() {
            "nobody".to_owned()
        } else {
            only.join("` and `")
        };
        let is_server = inside == layers.server || inside.starts_with(&format!("{}/", layers.server));
        let client = words(code)
            .filter(|(_, word)| CLIENT.contains(word) && !(is_server && matches!(*word, "tokio" | "axum")));
        findings.extend(
            client.map(|(line, word)| finding(line, format!("names `{word}`, which only `{only}` may do"))),
        );
    }
    findings
}

impl Layers {
    fn rank(&self, module: &str) -> Option<usize> {
        self.order.iter().position(|layer| layer.contains(&module))
    }

    fn drawn(&self) -> String {
        self.order
            .iter()
            .map(|layer| layer.join(", "))
            .collect::<Vec<_>>()
            .join(" < ")
    }
}

/// The crate's top modules that the code names: `crate::x`, `crate::{x, y::z}`, and `super::` as often as it takes.
fn used_modules(code: &str, depth: usize) -> Vec<(usize, String)> {
    let supers = "super::".repeat(depth);
    let mut used = Vec::new();
    for prefix in ["crate::", supers.as_str()] {
        for (at, _) in code.match_indices(prefix) {
            let (before, after) = (
                code.get(..at).unwrap_or_default(),
                code.get(at + prefix.len()..).unwrap_or_default(),
            );
            // `$crate::`, `my_crate::`, or a longer chain of `super::`.
            if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') || before.ends_with("super::") {
                continue;
            }
            let line = before.matches('\n').count() + 1;
            used.extend(top_names(after).into_iter().map(|name| (line, name)));
        }
    }
    used
}

fn top_names(after: &str) -> Vec<String> {
    let Some(group) = after.trim_start().strip_prefix('{') else {
        return first_word(after).into_iter().collect();
    };
    let (mut nesting, mut start, mut names) = (0usize, 0usize, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => nesting += 1,
            '}' if nesting > 0 => nesting -= 1,
            ',' | '}' if nesting == 0 => {
                names.extend(group.get(start..at).and_then(first_word));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text
        .trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!word.is_empty()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> String {
        let findings = check(&Source {
            path: path.into(),
            text: text.into(),
        });
        findings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn downwards_is_fine() {
        for (path, text) in [
            (
                "calico-azure-userspace/src/policy/calc.rs",
                "use crate::model::Rule;\nuse crate::policy::index;",
            ),
            (
                "calico-azure-userspace/src/cli/mod.rs",
                "use crate::{agent::run, dataplane, selector};",
            ),
            (
                "calico-azure-userspace/src/dataplane/io.rs",
                "use aya::maps::HashMap;",
            ),
            ("calico-azure-userspace/src/lib.rs", "pub mod cli;"),
            (
                "calico-azure-userspace/src/sources/kube/mod.rs",
                "use tokio::time::timeout;",
            ),
            (
                "calico-azure-ebpf/src/verdict/flow.rs",
                "use crate::abi::Key; use super::tables::Tables;",
            ),
            (
                "calico-azure-ebpf/src/bpf/maps.rs",
                "use aya_ebpf::macros::map; use crate::verdict::Tables;",
            ),
            ("xtask/src/main.rs", "use crate::cli;"),
        ] {
            assert_eq!(found(path, text), "", "{path}");
        }
    }

    #[test]
    fn upwards_and_sideways_are_not() {
        let policy = "calico-azure-userspace/src/policy/calc.rs";
        let text = found(policy, "//! Calc.\nuse crate::dataplane::Io;");
        assert!(
            text.starts_with("calico-azure-userspace/src/policy/calc.rs:2: `policy` uses `dataplane`"),
            "{text}"
        );
        assert!(text.contains("selector < model < policy"), "{text}");
        assert!(found(policy, "use crate::{model, cli::{a, b}};").contains("uses `cli`"));
        let dir = "calico-azure-userspace/src/sources/dir.rs";
        assert!(
            found(dir, "use tokio::sync::Notify;").contains("only `sources/kube` and `azure/arm` may do")
        );
        assert!(found(policy, "fn f() { super::super::agent::run() }").contains("uses `agent`"));
        assert!(
            found("calico-azure-userspace/src/policy/mod.rs", "use super::agent;").contains("uses `agent`")
        );
        assert!(
            found(
                "calico-azure-userspace/src/sources/dir.rs",
                "use crate::dataplane;"
            )
            .contains("`dataplane`")
        );
        assert!(
            found("calico-azure-ebpf/src/abi/keys.rs", "use crate::packet::L4;").contains("uses `packet`")
        );
    }

    #[test]
    fn aya_is_named_in_one_place() {
        assert!(found("calico-azure-userspace/src/agent.rs", "use aya::Ebpf;").contains("names `aya`"));
        assert!(found("calico-azure-ebpf/src/packet/l4.rs", "use aya_ebpf::x;").contains("names `aya_ebpf`"));
        assert_eq!(
            found(
                "calico-azure-userspace/src/agent.rs",
                "// aya does it\nlet s = \"aya\";"
            ),
            ""
        );
    }

    #[test]
    fn comments_tests_and_strangers() {
        let policy = "calico-azure-userspace/src/policy/calc.rs";
        assert_eq!(
            found(
                policy,
                "// crate::cli\nuse other_crate::cli;\n#[cfg(test)]\nmod tests { use crate::cli; }"
            ),
            ""
        );
        assert!(found("calico-azure-userspace/src/stranger.rs", "").contains("`stranger` is in no layer"));
    }
}
