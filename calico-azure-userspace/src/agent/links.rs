//! Which links get which programs, as a pure decision.

use crate::dataplane::attach::Role;
use crate::sources::links::Snapshot;

use super::config::FabricChoice;

/// The role of every link that gets programs because of what it is called or where it leads. Links that are pods'
/// only by their host route are found by policy.
pub(super) fn roles(
    snapshot: &Snapshot,
    prefixes: &[String],
    fabric: &FabricChoice,
) -> Vec<(u32, String, Role)> {
    let role = |ifindex: &u32, name: &str| {
        let is_fabric = match fabric {
            FabricChoice::Auto => snapshot.default_links.contains(ifindex),
            FabricChoice::None => false,
            FabricChoice::Named(names) => names.iter().any(|fabric| fabric == name),
        };
        if is_fabric {
            Some(Role::Fabric)
        } else if prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())) {
            Some(Role::Workload)
        } else {
            None
        }
    };
    let links = snapshot.links.iter().filter(|(_, link)| !link.slave);
    links
        .filter_map(|(ifindex, link)| Some((*ifindex, link.name.clone(), role(ifindex, &link.name)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::links::Link;

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
        assert_eq!(get("auto"), [(2, Role::Fabric), (4, Role::Workload)]);
        assert_eq!(get("none"), [(4, Role::Workload)]);
        assert_eq!(
            get("docker0, eth0"),
            [(2, Role::Fabric), (4, Role::Workload), (5, Role::Fabric)]
        );
    }
}
