//! Commands of the `az` command line.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::azure::nodes::NodeState;
use crate::azure::resource::{Id, Nic};

fn of_table(table: &Id, verb: &str, route: &str) -> String {
    format!(
        "az network route-table route {verb} --subscription {} --resource-group {} --route-table-name {} --name {}",
        quoted(table.part("subscriptions").unwrap_or_default()),
        quoted(table.part("resourceGroups").unwrap_or_default()),
        quoted(table.name()),
        quoted(route)
    )
}

fn to(prefix: &str, hop: IpAddr) -> String {
    format!("--address-prefix {prefix} --next-hop-type VirtualAppliance --next-hop-ip-address {hop}")
}

/// Makes a route to a node.
#[must_use]
pub fn route_create(table: &Id, route: &str, prefix: &IpNet, hop: IpAddr) -> String {
    format!(
        "{} {}",
        of_table(table, "create", route),
        to(&prefix.to_string(), hop)
    )
}

/// Makes an existing route one to a node.
#[must_use]
pub fn route_update(table: &Id, route: &str, prefix: &IpNet, hop: IpAddr) -> String {
    format!(
        "{} {}",
        of_table(table, "update", route),
        to(&prefix.to_string(), hop)
    )
}

/// Removes a route.
#[must_use]
pub fn route_delete(table: &Id, route: &str) -> String {
    of_table(table, "delete", route)
}

/// Makes a node a new one, with a podCIDR of its own. `None`: how its machine is started anew is not known, and without that it would be gone.
pub(super) fn rejoin(node: &NodeState) -> Option<Vec<String>> {
    let machine = node.machine.as_ref()?;
    let restart = match machine.part("virtualMachineScaleSets") {
        Some(_) => format!(
            "az vmss restart --ids {} --instance-ids {}",
            quoted(machine.parent()?.as_str()),
            quoted(machine.name())
        ),
        None => {
            machine.part("virtualMachines")?;
            format!("az vm restart --ids {}", quoted(machine.as_str()))
        }
    };
    let name = quoted(&node.name);
    Some(vec![
        format!("kubectl drain {name} --ignore-daemonsets --delete-emptydir-data"),
        format!("kubectl delete node {name}"),
        restart,
    ])
}

pub(super) fn table_create(table: &Id, location: &str) -> String {
    let location = if location.is_empty() {
        String::new()
    } else {
        format!(" --location {}", quoted(location))
    };
    format!(
        "az network route-table create --subscription {} --resource-group {} --name {}{location}",
        quoted(table.part("subscriptions").unwrap_or_default()),
        quoted(table.part("resourceGroups").unwrap_or_default()),
        quoted(table.name())
    )
}

pub(super) fn associate(subnet: &Id, table: &Id) -> String {
    format!(
        "az network vnet subnet update --ids {} --route-table {}",
        quoted(subnet.as_str()),
        quoted(table.as_str())
    )
}

/// Gives a virtual network these prefixes, in place of those that it has.
pub(super) fn prefixes(network: &Id, all: &[IpNet]) -> String {
    let all: Vec<String> = all.iter().map(IpNet::to_string).collect();
    format!(
        "az network vnet update --ids {} --address-prefixes {}",
        quoted(network.as_str()),
        all.join(" ")
    )
}

/// Of a scale set's machine it is the scale set that says so, and the machine has to be brought in line. `None`: which of the scale
/// set's interfaces it is, is not known, and another one would be changed.
pub(super) fn forwarding(nic: &Nic) -> Option<Vec<String>> {
    let Some(set) = nic.id.part("virtualMachineScaleSets") else {
        return Some(vec![format!(
            "az network nic update --ids {} --ip-forwarding true",
            quoted(nic.id.as_str())
        )]);
    };
    let place = nic.place?;
    let part = |kind| quoted(nic.id.part(kind).unwrap_or_default());
    let of = format!(
        "--subscription {} --resource-group {} --name {}",
        part("subscriptions"),
        part("resourceGroups"),
        quoted(set)
    );
    let property = format!(
        "virtualMachineProfile.networkProfile.networkInterfaceConfigurations[{place}].enableIPForwarding=true"
    );
    Some(vec![
        format!("az vmss update {of} --set {}", quoted(&property)),
        format!(
            "az vmss update-instances {of} --instance-ids {}",
            part("virtualMachines")
        ),
    ])
}

/// A shell's word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_shell_would_take_apart() {
        let table =
            Id::new("/subscriptions/s/resourceGroups/my group/providers/Microsoft.Network/routeTables/t");
        assert_eq!(
            route_delete(&table, "it's"),
            "az network route-table route delete --subscription s --resource-group 'my group' --route-table-name t --name 'it'\\''s'"
        );
    }
}
