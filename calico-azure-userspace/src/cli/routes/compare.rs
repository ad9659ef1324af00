//! What nodes' objects and Azure say of the prefixes that the kernel's tables have, and of those that they lack. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Row;
use crate::azure::nodes::NodeState;
use crate::azure::resource::VIRTUAL_APPLIANCE;
use crate::azure::snapshot::Snapshot;

/// Who is asked, beside the kernel.
pub(super) struct Others<'a> {
    /// This node.
    pub(super) node: &'a str,
    pub(super) nodes: &'a [NodeState],
    /// podCIDRs say nothing about pods' addresses here.
    pub(super) ignores_pod_cidrs: bool,
    pub(super) azure: Option<&'a Snapshot>,
}

const POD_CIDRS: [&str; 2] = ["local-pod-cidr", "remote-pod-cidr"];
const HOSTS: [&str; 2] = ["local-host", "remote-host"];

impl Others<'_> {
    /// Says of each row what they say of it, and adds rows for what only they know.
    pub(super) fn compare(&self, rows: &mut Vec<Row>) {
        let kernel = rows.len();
        for node in self.nodes {
            let remote = usize::from(node.name != self.node);
            let cidrs = node.pod_cidrs.iter().filter(|_| !self.ignores_pod_cidrs);
            let cidrs = cidrs.map(|net| (net.trunc(), POD_CIDRS[remote]));
            let hosts = node
                .internal_ips
                .iter()
                .map(|ip| (IpNet::from(*ip), HOSTS[remote]));
            for (net, kind) in cidrs.chain(hosts) {
                match rows.iter_mut().find(|row| row.prefix == text(net)) {
                    Some(row) => {
                        row.node = Some(node.name.clone());
                        if !row.kinds.contains(&kind) {
                            row.drifts(format!(
                                "node {} has it as {kind}, and the kernel's tables do not",
                                node.name
                            ));
                        }
                    }
                    None => {
                        let mut row = Row::of(net, kind, "node");
                        row.node = Some(node.name.clone());
                        row.drifts("the kernel's tables do not have it".to_owned());
                        rows.push(row);
                    }
                }
            }
        }
        for row in rows.iter_mut().take(kernel) {
            let nodes = POD_CIDRS.iter().chain(&HOSTS[1..]);
            if row.node.is_none() && nodes.into_iter().any(|kind| row.kinds.contains(kind)) {
                row.drifts("no node of the API's has it".to_owned());
            }
        }
        if let Some(azure) = self.azure {
            self.azure(azure, rows);
        }
        rows.sort_by_key(|row| row.prefix.parse::<IpNet>().ok());
    }

    fn azure(&self, azure: &Snapshot, rows: &mut Vec<Row>) {
        let routes = azure.table.iter().flat_map(|table| &table.routes);
        let own = azure.nodes.iter().find(|node| node.name == self.node);
        let effective = own
            .and_then(|node| azure.nic(node))
            .and_then(|nic| azure.effective.get(&nic.id));
        for wanted in azure.wanted().into_iter().filter(|_| !self.ignores_pod_cidrs) {
            let net = wanted.prefix.trunc();
            let Some(row) = rows.iter_mut().find(|row| row.prefix == text(net)) else {
                continue;
            };
            let right = |kind: &str, hop: Option<&str>| {
                let hop = hop.and_then(|hop| hop.parse::<IpAddr>().ok());
                kind == VIRTUAL_APPLIANCE && hop.is_some() && hop == wanted.hop
            };
            let expected = wanted
                .hop
                .map_or_else(String::new, |hop| format!("; expected {hop}, of {}", wanted.node));
            match routes.clone().find(|route| route.net() == Some(net)) {
                None => row.drifts("Azure's route table has no route to it".to_owned()),
                Some(route) => {
                    let hop = route.next_hop.as_deref();
                    let to = hop.unwrap_or(&route.kind);
                    row.azure = Some(format!("{to} (route {})", route.name));
                    if !right(&route.kind, hop) {
                        row.drifts(format!("Azure's route {} sends it to {to}{expected}", route.name));
                    }
                }
            }
            let Some(effective) = effective else { continue };
            let here = effective.iter().find(|route| {
                let mut prefixes = route.address_prefix.iter();
                route.state == "Active"
                    && prefixes.any(|prefix| prefix.parse::<IpNet>().is_ok_and(|found| found.trunc() == net))
            });
            match here {
                None => row.drifts("the fabric has no route to it at this node's interface".to_owned()),
                Some(route) => {
                    let hop = route.next_hop_ip_address.first().map(String::as_str);
                    let to = hop.unwrap_or(&route.next_hop_type);
                    row.fabric = Some(to.to_owned());
                    if !right(&route.next_hop_type, hop) {
                        row.drifts(format!("the fabric sends it to {to}{expected}"));
                    }
                }
            }
        }
        for route in routes {
            let Some(net) = route.net() else { continue };
            if rows.iter().all(|row| row.prefix != text(net)) {
                let mut row = Row::of(net, "user-defined-route", "azure");
                let to = route.next_hop.as_deref().unwrap_or(&route.kind);
                row.azure = Some(format!("{to} (route {})", route.name));
                rows.push(row);
            }
        }
        for net in azure.networks.iter().flat_map(|network| &network.prefixes) {
            match rows.iter_mut().find(|row| row.prefix == text(net.trunc())) {
                Some(row) => {
                    row.kinds.push("vnet");
                    row.origins.push("azure");
                }
                None => rows.push(Row::of(net.trunc(), "vnet", "azure")),
            }
        }
    }
}

fn text(net: IpNet) -> String {
    net.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::resource::{
        EffectiveRoute, Id, IpConfiguration, Nic, Route, RouteTable, VirtualNetwork,
    };

    fn node(name: &str, cidr: &str, ip: &str) -> NodeState {
        NodeState {
            name: name.into(),
            pod_cidrs: vec![cidr.parse().unwrap()],
            internal_ips: vec![ip.parse().unwrap()],
            managed: true,
            ..NodeState::default()
        }
    }

    fn kernel() -> Vec<Row> {
        [
            ("10.1.0.0/24", "local-pod-cidr"),
            ("10.2.0.0/24", "remote-pod-cidr"),
            ("192.168.0.1/32", "local-host"),
            ("192.168.0.2/32", "remote-host"),
        ]
        .map(|(prefix, kind)| Row::of(prefix.parse().unwrap(), kind, "node"))
        .into()
    }

    fn nodes() -> Vec<NodeState> {
        vec![
            node("n1", "10.1.0.0/24", "192.168.0.1"),
            node("n2", "10.2.0.0/24", "192.168.0.2"),
        ]
    }

    fn azure() -> Snapshot {
        let route = |name: &str, prefix: &str, hop: &str| Route {
            name: name.into(),
            prefix: prefix.into(),
            kind: VIRTUAL_APPLIANCE.into(),
            next_hop: Some(hop.into()),
            ..Route::default()
        };
        Snapshot {
            nodes: nodes(),
            table: Some(RouteTable {
                routes: vec![
                    route("n1", "10.1.0.0/24", "192.168.0.1"),
                    route("n2", "10.2.0.0/24", "192.168.0.2"),
                ],
                ..RouteTable::default()
            }),
            networks: vec![VirtualNetwork {
                prefixes: vec!["192.168.0.0/16".parse().unwrap()],
                ..VirtualNetwork::default()
            }],
            ..Snapshot::default()
        }
    }

    /// Prefix and drift of each row that has one.
    fn drifts(rows: &[Row]) -> Vec<String> {
        let with = rows
            .iter()
            .filter_map(|row| Some(format!("{}: {}", row.prefix, row.drift.as_ref()?)));
        with.collect()
    }

    fn compared(mut rows: Vec<Row>, nodes: &[NodeState], azure: Option<&Snapshot>) -> Vec<Row> {
        let others = Others {
            node: "n1",
            nodes,
            ignores_pod_cidrs: false,
            azure,
        };
        others.compare(&mut rows);
        rows
    }

    #[test]
    fn nothing_is_said_where_all_agree() {
        let rows = compared(kernel(), &nodes(), Some(&azure()));
        assert_eq!(drifts(&rows), Vec::<String>::new());
        let last = rows.last().unwrap();
        assert!(
            rows.iter()
                .any(|row| row.kinds == ["vnet"] && row.prefix == "192.168.0.0/16"),
            "{last:?}"
        );
        let remote = rows.iter().find(|row| row.prefix == "10.2.0.0/24").unwrap();
        assert_eq!(remote.node.as_deref(), Some("n2"));
        assert_eq!(remote.azure.as_deref(), Some("192.168.0.2 (route n2)"));
    }

    #[test]
    fn what_the_kernel_lacks_or_has_beyond_the_api_is_drift() {
        let mut rows = kernel();
        rows.remove(1);
        assert_eq!(
            drifts(&compared(rows, &nodes(), None)),
            ["10.2.0.0/24: the kernel's tables do not have it"]
        );
        assert_eq!(
            drifts(&compared(kernel(), &nodes()[..1], None)),
            [
                "10.2.0.0/24: no node of the API's has it",
                "192.168.0.2/32: no node of the API's has it"
            ]
        );
        let mut swapped = nodes();
        swapped[1].pod_cidrs = vec!["10.1.0.0/24".parse().unwrap()];
        let told = drifts(&compared(kernel(), &swapped, None));
        assert!(told[0].contains("node n2 has it as remote-pod-cidr"), "{told:#?}");
    }

    #[test]
    fn what_azure_says_otherwise_is_drift() {
        let mut azure = azure();
        let table = azure.table.as_mut().unwrap();
        table.routes[1].next_hop = Some("192.168.0.9".into());
        table.routes.remove(0);
        assert_eq!(
            drifts(&compared(kernel(), &nodes(), Some(&azure))),
            [
                "10.1.0.0/24: Azure's route table has no route to it",
                "10.2.0.0/24: Azure's route n2 sends it to 192.168.0.9; expected 192.168.0.2, of n2",
            ]
        );
    }

    #[test]
    fn the_fabric_has_the_last_word() {
        let mut azure = azure();
        let nic = Id::new("/nics/n1");
        azure.nics = Some(vec![Nic {
            id: nic.clone(),
            configurations: vec![IpConfiguration {
                address: Some("192.168.0.1".parse().unwrap()),
                ..IpConfiguration::default()
            }],
            ..Nic::default()
        }]);
        let route = |prefix: &str, hop: &str| EffectiveRoute {
            source: "User".into(),
            state: "Active".into(),
            address_prefix: vec![prefix.into()],
            next_hop_type: VIRTUAL_APPLIANCE.into(),
            next_hop_ip_address: vec![hop.into()],
        };
        azure
            .effective
            .insert(nic, vec![route("10.1.0.0/24", "192.168.0.1")]);
        let rows = compared(kernel(), &nodes(), Some(&azure));
        assert_eq!(
            drifts(&rows),
            ["10.2.0.0/24: the fabric has no route to it at this node's interface"]
        );
        assert_eq!(rows[0].fabric.as_deref(), Some("192.168.0.1"));
    }
}
