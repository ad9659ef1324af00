//! Which Debian packages bring what we need. Pure: what apt knows is asked through a closure.

use super::facts::version_pair;
use super::problems::Problem;

/// A program that the demo, the tests or the benchmarks start.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// Where it may be besides the PATH.
    files: &'static [&'static str],
    /// Alternatives; each may be several packages.
    packages: &'static [&'static [&'static str]],
}

/// Where distributions put CNI's plug-ins.
pub(super) const CNI: [&str; 2] = ["/usr/lib/cni/ptp", "/opt/cni/bin/ptp"];

const TOOLS: [Tool; 13] = [
    // For the fuzzer.
    Tool {
        name: "c++",
        files: &[],
        packages: &[&["g++"]],
    },
    Tool {
        name: "ip",
        files: &[],
        packages: &[&["iproute2"]],
    },
    Tool {
        name: "tc",
        files: &[],
        packages: &[&["iproute2"]],
    },
    Tool {
        name: "nft",
        files: &[],
        packages: &[&["nftables"]],
    },
    Tool {
        name: "iptables",
        files: &[],
        packages: &[&["iptables"]],
    },
    Tool {
        name: "ipset",
        files: &[],
        packages: &[&["ipset"]],
    },
    Tool {
        name: "conntrack",
        files: &[],
        packages: &[&["conntrack"]],
    },
    Tool {
        name: "iperf3",
        files: &[],
        packages: &[&["iperf3"]],
    },
    Tool {
        name: "ethtool",
        files: &[],
        packages: &[&["ethtool"]],
    },
    Tool {
        name: "tcpdump",
        files: &[],
        packages: &[&["tcpdump"]],
    },
    Tool {
        name: "ping",
        files: &[],
        packages: &[&["iputils-ping"]],
    },
    // Ubuntu ships bpftool with the kernel's tools.
    Tool {
        name: "bpftool",
        files: &[],
        packages: &[&["bpftool"], &["linux-tools-common", "linux-tools-generic"]],
    },
    Tool {
        name: "ptp",
        files: &CNI,
        packages: &[&["containernetworking-plugins"]],
    },
];

/// What virtual machines with other kernels need.
const MACHINE_TOOLS: [Tool; 5] = [
    // For kube-proxy's IPVS mode, which those kernels have.
    Tool {
        name: "ipvsadm",
        files: &[],
        packages: &[&["ipvsadm"]],
    },
    Tool {
        name: "qemu-system-x86_64",
        files: &[],
        packages: &[&["qemu-system-x86"]],
    },
    Tool {
        name: "cpio",
        files: &[],
        packages: &[&["cpio"]],
    },
    Tool {
        name: "xz",
        files: &[],
        packages: &[&["xz-utils"]],
    },
    Tool {
        name: "strip",
        files: &[],
        packages: &[&["binutils"]],
    },
];

/// What `apt-get source` and unpacking need.
const SOURCE_TOOLS: [Tool; 2] = [
    Tool {
        name: "dpkg-source",
        files: &[],
        packages: &[&["dpkg-dev"]],
    },
    Tool {
        name: "gzip",
        files: &[],
        packages: &[&["gzip"]],
    },
];

/// C compilers that link static programs, for images.
const COMPILERS: [Tool; 4] = [
    Tool {
        name: "cc",
        files: &[],
        packages: &[&["gcc", "libc6-dev"]],
    },
    Tool {
        name: "musl-gcc",
        files: &[],
        packages: &[&["musl-tools"]],
    },
    Tool {
        name: "x86_64-linux-gnu-gcc",
        files: &[],
        packages: &[&["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"]],
    },
    Tool {
        name: "aarch64-linux-gnu-gcc",
        files: &[],
        packages: &[&["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]],
    },
];

/// This compiler, if it is not there.
pub(super) fn missing_compilers(name: &str, on_path: impl Fn(&str) -> bool) -> Vec<&'static Tool> {
    let wanted = COMPILERS.iter().filter(|tool| tool.name == name);
    wanted.filter(|tool| !on_path(tool.name)).collect()
}

/// Those of them that are not there.
pub(super) fn missing_source_tools(on_path: impl Fn(&str) -> bool) -> Vec<&'static Tool> {
    SOURCE_TOOLS.iter().filter(|tool| !on_path(tool.name)).collect()
}

/// Those of them that are not there.
pub(super) fn missing_machine_tools(on_path: impl Fn(&str) -> bool) -> Vec<&'static Tool> {
    MACHINE_TOOLS.iter().filter(|tool| !on_path(tool.name)).collect()
}

/// The tools that are not there.
pub(super) fn missing_tools(
    exists: impl Fn(&str) -> bool,
    on_path: impl Fn(&str) -> bool,
) -> Vec<&'static Tool> {
    TOOLS
        .iter()
        .filter(|tool| {
            let there = if tool.files.is_empty() {
                on_path(tool.name)
            } else {
                tool.files.iter().any(|file| exists(file))
            };
            !there
        })
        .collect()
}

/// The packages to install: for each tool the first alternative that apt knows.
pub(super) fn select(
    missing: &[&'static Tool],
    known: impl Fn(&str) -> bool,
) -> Result<Vec<String>, Problem> {
    let mut wanted: Vec<String> = Vec::new();
    for tool in missing {
        let Some(set) = tool
            .packages
            .iter()
            .find(|set| set.iter().all(|package| known(package)))
        else {
            let packages = tool.packages.iter().map(|set| set.join(" + ")).collect();
            return Err(Problem::NoPackage {
                tool: tool.name.to_owned(),
                packages,
            });
        };
        wanted.extend(set.iter().map(|&package| package.to_owned()));
    }
    wanted.sort();
    wanted.dedup();
    Ok(wanted)
}

/// What the user has to install where we cannot.
pub(super) fn by_hand(missing: &[&'static Tool], distro: &str) -> Vec<Problem> {
    let problem = |tool: &&Tool| Problem::ByHand {
        tool: tool.name.to_owned(),
        package: tool.package(),
        distro: distro.to_owned(),
    };
    missing.iter().map(problem).collect()
}

/// Tools that installing their packages did not bring.
pub(super) fn still_missing(missing: &[&'static Tool]) -> Vec<Problem> {
    let problem = |tool: &&Tool| Problem::StillMissing {
        tool: tool.name.to_owned(),
        package: tool.package(),
    };
    missing.iter().map(problem).collect()
}

impl Tool {
    fn package(&self) -> String {
        self.packages.first().map(|set| set.join(" ")).unwrap_or_default()
    }
}

/// A Rust compiler with sources, new enough for this workspace. Debian keeps a recent one for building browsers.
pub(super) fn compiler(candidate: impl Fn(&str) -> Option<String>) -> Option<Vec<String>> {
    const SETS: [[&str; 3]; 2] = [
        ["rustc-web", "cargo-web", "rust-web-src"],
        ["rustc", "cargo", "rust-src"],
    ];
    SETS.iter()
        .find(|set| {
            set.iter().all(|package| {
                // cargo's package has had versions of its own (0.x), so only the compiler's counts.
                candidate(package).is_some_and(|version| package.starts_with("cargo") || recent(&version))
            })
        })
        .map(|set| set.iter().map(|&package| package.to_owned()).collect())
}

fn recent(version: &str) -> bool {
    version_pair(version).is_some_and(|pair| pair >= (1, 95))
}

/// The development packages of one LLVM release, as bpf-linker needs them.
pub(super) fn llvm(major: u32) -> Vec<String> {
    let mut wanted = vec![format!("llvm-{major}-dev"), format!("libpolly-{major}-dev")];
    wanted.extend(["zlib1g-dev", "libzstd-dev", "libxml2-dev"].map(str::to_owned));
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        assert_eq!(missing_tools(|_| true, |_| true), Vec::<&Tool>::new());
        let missing = missing_tools(
            |file| file.starts_with("/opt/cni"),
            |name| name != "tc" && name != "ip",
        );
        assert_eq!(
            missing.iter().map(|tool| tool.name).collect::<Vec<_>>(),
            ["ip", "tc"]
        );
        assert_eq!(select(&missing, |_| true).unwrap(), ["iproute2"]);
    }

    #[test]
    fn ubuntu_gets_bpftool_from_its_kernel_tools() {
        let missing = missing_tools(|_| true, |name| name != "bpftool");
        assert_eq!(select(&missing, |_| true).unwrap(), ["bpftool"]);
        let ubuntu = select(&missing, |package| package != "bpftool").unwrap();
        assert_eq!(ubuntu, ["linux-tools-common", "linux-tools-generic"]);
        let text = select(&missing, |_| false).unwrap_err().to_string();
        assert!(
            text.contains("bpftool or linux-tools-common") && text.contains("sources.list"),
            "{text}"
        );
    }

    #[test]
    fn elsewhere_the_user_is_told_each_package() {
        let missing = missing_tools(|_| false, |_| true);
        let problems = by_hand(&missing, "Fedora Linux 44");
        let text = problems.first().map(ToString::to_string).unwrap_or_default();
        assert!(
            text.contains("containernetworking-plugins") && text.contains("Fedora Linux 44"),
            "{text}"
        );
    }

    #[test]
    fn an_old_compiler_is_not_worth_installing() {
        let bookworm = |package: &str| match package {
            "rustc-web" | "rust-web-src" => Some("1.96.0+dfsg1-1~deb12u2".to_owned()),
            "cargo-web" => Some("1.96.0+dfsg1-1~deb12u2".to_owned()),
            "rustc" | "rust-src" => Some("1.63.0+dfsg1-2".to_owned()),
            _ => Some("0.66.0".to_owned()),
        };
        assert_eq!(
            compiler(bookworm).unwrap(),
            ["rustc-web", "cargo-web", "rust-web-src"]
        );
        let old = |package: &str| bookworm(package).filter(|_| !package.contains("web"));
        assert_eq!(compiler(old), None);
        let sid = |package: &str| (!package.contains("web")).then(|| "1.97.1+dfsg1-1".to_owned());
        assert_eq!(compiler(sid).unwrap(), ["rustc", "cargo", "rust-src"]);
    }
}
