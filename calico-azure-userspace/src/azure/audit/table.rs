//! The route table itself.

use super::az;
use crate::azure::finding::{Check, Finding};
use crate::azure::resource::SUCCEEDED;
use crate::azure::snapshot::Snapshot;

/// From here on it is time to ask for more, in percent of the limit.
const NEARLY_FULL: usize = 90;

pub(super) fn check(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let id = &snapshot.table_id;
    let object = format!("route-table/{}", id.name());
    let Some(table) = &snapshot.table else {
        let finding = Finding::new(
            Check::TableMissing,
            object,
            format!("ARM has no {id}, which the cluster is configured with"),
        );
        findings.push(finding.fix([az::table_create(id, &snapshot.location)]));
        return;
    };
    if !table.state.is_empty() && table.state != SUCCEEDED {
        let evidence = format!("provisioningState is {}", table.state);
        findings.push(Finding::new(Check::TableState, &object, evidence));
    }
    if table.no_gateway_routes {
        let evidence = "disableBgpRoutePropagation is true";
        findings.push(Finding::new(Check::GatewayRoutes, &object, evidence));
    }
    let (limit, routes) = (snapshot.settings.route_limit, table.routes.len());
    let prefixes: Vec<_> = table.routes.iter().filter_map(|route| route.net()).collect();
    let wanted = snapshot.wanted();
    let missing = wanted.iter().filter(|wanted| !prefixes.contains(&wanted.prefix));
    let needed = routes + missing.count();
    if needed * 100 >= limit * NEARLY_FULL {
        let evidence = format!("{routes} routes, {needed} with those that are missing, of {limit}");
        findings.push(Finding::new(Check::RouteLimit, &object, evidence));
    }
    for route in &table.routes {
        let Some(net) = route.net().filter(|net| net.prefix_len() == 0) else {
            continue;
        };
        if !matches!(route.kind.as_str(), "VirtualAppliance" | "VirtualNetworkGateway") {
            let evidence = format!("the route to {net} is of kind {}", route.kind);
            findings.push(Finding::new(
                Check::DefaultRoute,
                format!("route/{}", route.name),
                evidence,
            ));
        }
    }
}
