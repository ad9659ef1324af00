//! What can be wrong with a machine: each says what is missing and what to do about it.

use std::fmt;

/// One obstacle. `Display` is the message for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    NotLinux {
        os: String,
    },
    NotRoot {
        to: &'static str,
    },
    OldKernel {
        release: String,
    },
    NoBtf,
    NoBpffs,
    MountFailed {
        error: String,
    },
    /// A tool that we cannot install here.
    ByHand {
        tool: String,
        package: String,
        distro: String,
    },
    /// apt says that the package is installed, and yet the tool is not there.
    StillMissing {
        tool: String,
        package: String,
    },
    NoPackage {
        tool: String,
        packages: Vec<String>,
    },
    NoNetwork {
        doing: String,
        detail: String,
    },
    AptFailed {
        doing: String,
        detail: String,
    },
    NoCompilerPackage {
        distro: String,
    },
    NoLlvmPackage {
        wanted: String,
    },
    NoToolchain {
        tried: Vec<String>,
    },
    Unusable {
        wish: String,
        why: String,
    },
    NoLinker {
        llvm: u32,
        reasons: Vec<String>,
    },
}

impl std::error::Error for Problem {}

impl Problem {
    /// What a search that goes on elsewhere should remember of this.
    pub(super) fn reasons(self) -> Vec<String> {
        match self {
            Self::NoToolchain { tried } => tried,
            other => vec![other.to_string()],
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLinux { os } => write!(
                f,
                "this is {os}, and eBPF programs load on Linux only: use a Linux machine or virtual machine \
                 (5.10 or newer)"
            ),
            Self::NotRoot { to } => {
                write!(f, "not root, which is needed to {to}: run the same command with `sudo -E env \"PATH=$PATH\"`")
            }
            Self::OldKernel { release } => {
                let shown = if release.is_empty() { "of unknown version" } else { release };
                write!(f, "the kernel {shown} is too old or unreadable: boot 5.10 or newer (AKS nodes have 5.15 or newer)")
            }
            Self::NoBtf => f.write_str(
                "the kernel has no type information (/sys/kernel/btf/vmlinux is missing): boot one built with \
                 CONFIG_DEBUG_INFO_BTF=y, as the kernels of Debian, Ubuntu and AKS are",
            ),
            Self::NoBpffs => f.write_str(
                "the kernel has no BPF file system (/proc/filesystems does not list bpf): boot one built with \
                 CONFIG_BPF_SYSCALL=y",
            ),
            Self::MountFailed { error } => write!(
                f,
                "cannot mount the BPF file system at /sys/fs/bpf: {error}; in a container, mount it on the host \
                 (`mount -t bpf bpffs /sys/fs/bpf`) and pass it in with --privileged"
            ),
            Self::ByHand { tool, package, distro } => write!(
                f,
                "{tool} is missing, and {distro} is not Debian or Ubuntu with apt: install it by hand (Debian calls the \
                 package {package}), then run this again"
            ),
            Self::StillMissing { tool, package } => write!(
                f,
                "{tool} is missing although apt has installed {package}: repair it with \
                 `apt-get install --reinstall {package}`, or put {tool} on the PATH"
            ),
            Self::NoPackage { tool, packages } => write!(
                f,
                "{tool} is missing and apt knows no package for it ({}): enable the distribution's main (on Ubuntu also \
                 universe) component in /etc/apt/sources.list, then run this again",
                packages.join(" or ")
            ),
            Self::NoNetwork { doing, detail } => write!(
                f,
                "{doing} failed because the package mirror cannot be reached: check the network, DNS and proxy \
                 (http_proxy, /etc/apt/apt.conf.d), then run this again\n{detail}"
            ),
            Self::AptFailed { doing, detail } => {
                write!(f, "{doing} failed; repair it with `apt-get -f install`, then run this again\n{detail}")
            }
            Self::NoCompilerPackage { distro } => write!(
                f,
                "apt on {distro} has no Rust compiler 1.95 or newer with sources (rustc-web, cargo-web, rust-web-src)"
            ),
            Self::NoLlvmPackage { wanted } => {
                write!(f, "building bpf-linker needs the package {wanted}, and apt knows none of them")
            }
            Self::NoToolchain { tried } => {
                f.write_str("no Rust toolchain here can build eBPF programs: one needs rustc 1.95 or newer, cargo, and the sources of core\n")?;
                for reason in tried {
                    writeln!(f, "       - {reason}")?;
                }
                write!(
                    f,
                    "       remedy: `rustup toolchain install nightly -c rust-src`, or name one in {}",
                    super::toolchain::OVERRIDE
                )
            }
            Self::Unusable { wish, why } => write!(
                f,
                "{}={wish} cannot be used: {why}; give a rustup toolchain's name or a directory that contains bin/rustc",
                super::toolchain::OVERRIDE
            ),
            Self::NoLinker { llvm, reasons } => {
                writeln!(f, "no bpf-linker understands the output of this rustc (LLVM {llvm})")?;
                for reason in reasons {
                    writeln!(f, "       - {reason}")?;
                }
                write!(
                    f,
                    "       remedy: `cargo binstall bpf-linker`, or unpack a release of \
                     github.com/aya-rs/bpf-linker onto the PATH, or name one in {}",
                    super::linker::OVERRIDE
                )
            }
        }
    }
}
