//! Which links get which programs, as a pure decision.

use crate::dataplane::attach::Role;
use crate::sources::links::{Link, Snapshot};

use super::config::FabricChoice;
use super::networking::is_flannel;

/// The role of every link that gets programs because of what it is called or where it leads. Links that are pods'
/// only by their host route are found by policy.
pub(super) fn roles(
    snapshot: &Snapshot,
    prefixes: &[String],
    fabric: &FabricChoice,
) -> Vec<(u32, String, Role)> {
    let role = |ifindex: &u32, link: &Link| {
        let leads_out = snapshot.default_links.contains(ifindex) || is_flannel(link);
        let found = *fabric == FabricChoice::Auto && leads_out;
        if !link.slave && (found || names_the_fabric(link, fabric)) {
            Some(Role::Fabric)
        } else if names_a_pod(link, prefixes, fabric) {
            Some(Role::Workload)
        } else {
            None
        }
    };
    let links = snapshot.links.iter();
    links
        .filter_map(|(ifindex, link)| Some((*ifindex, link.name.clone(), role(ifindex, link)?)))
        .collect()
}

/// Whether a link is a pod's by its name alone.
pub(super) fn names_a_pod(link: &Link, prefixes: &[String], fabric: &FabricChoice) -> bool {
    let named = prefixes
        .iter()
        .any(|prefix| link.name.starts_with(prefix.as_str()));
    named && !link.slave && !names_the_fabric(link, fabric)
}

fn names_the_fabric(link: &Link, fabric: &FabricChoice) -> bool {
    matches!(fabric, FabricChoice::Named(names) if names.contains(&link.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::links::LinkKind;

    #[test]
    fn prefixes_make_workloads_and_default_routes_the_fabric() {
        let link = |name: &str, slave| Link {
            name: name.into(),
            slave,
            ..Link::default()
        };
        let snapshot = Snapshot {
            links: [
                (1, link("lo", false)),
                (2, link("eth0", false)),
                (3, link("enP1s1", true)),
                (4, link("azv01234567890", false)),
                (5, link("docker0", false)),
                (6, link("cali0", true)),
                (
                    7,
                    Link {
                        kind: LinkKind::Vxlan {
                            port: 8472,
                            parent: 2,
                            v6: false,
                        },
                        ..link("flannel.1", false)
                    },
                ),
            ]
            .into(),
            default_links: [2, 3].into(),
            ..Snapshot::default()
        };
        let prefixes = ["cali".to_owned(), "azv".to_owned()];
        let get = |fabric: &str| {
            let fabric = fabric.parse().unwrap_or(FabricChoice::None);
            roles(&snapshot, &prefixes, &fabric)
                .into_iter()
                .map(|(i, _, role)| (i, role))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            get("auto"),
            [(2, Role::Fabric), (4, Role::Workload), (7, Role::Fabric)]
        );
        assert_eq!(get("none"), [(4, Role::Workload)]);
        assert_eq!(
            get("docker0, eth0"),
            [(2, Role::Fabric), (4, Role::Workload), (5, Role::Fabric)]
        );
    }
}
