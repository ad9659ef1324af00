//! Programs that others attached to interfaces where ours are.

use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use calico_azure_ebpf::abi::program;

/// Ours, where the kernel shows whole names and where it shows 15 bytes of them.
const OURS: [&str; 5] = [
    program::FROM_WORKLOAD,
    program::TO_WORKLOAD,
    program::FROM_FABRIC,
    program::TO_FABRIC,
    program::UNTRACKED,
];

/// Whether a program of that name is ours.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    OURS.iter()
        .any(|ours| name == *ours || name.len() >= 12 && ours.starts_with(name))
}

/// Hook and name of each that is attached by tcx, and of the XDP program with this id.
#[must_use]
pub fn programs(interface: &str, xdp: Option<u32>) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (hook, end) in [
        ("ingress", TcAttachType::Ingress),
        ("egress", TcAttachType::Egress),
    ] {
        // Kernels before 6.6 know no such thing.
        if let Ok((_, infos)) = SchedClassifier::query_tcx(interface, end) {
            found.extend(
                infos
                    .iter()
                    .filter_map(|info| Some((hook, info.name_as_str()?.to_owned()))),
            );
        }
    }
    if let Some(id) = xdp {
        let info = loaded_programs().flatten().find(|info| info.id() == id);
        let name = info.and_then(|info| info.name_as_str().map(str::to_owned));
        found.push(("xdp", name.unwrap_or_else(|| format!("program {id}"))));
    }
    found
}
