//! Whether Azure does what the cluster needs of it. Pure: a snapshot in, findings out.

mod az;
mod cidrs;
mod nics;
mod nodes;
mod routes;
mod security;
mod table;
#[cfg(test)]
mod tests;

use super::finding::Finding;
use super::snapshot::Snapshot;

pub use az::{route_create, route_delete, route_update};

/// Every finding, worst first, then by check and object.
#[must_use]
pub fn audit(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    if snapshot.networking.network.needs_routes() {
        table::check(snapshot, &mut findings);
        routes::check(snapshot, &mut findings);
    }
    nodes::check(snapshot, &mut findings);
    cidrs::check(snapshot, &mut findings);
    nics::check(snapshot, &mut findings);
    security::check(snapshot, &mut findings);
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
    findings.dedup();
    findings
}

/// A list that nobody has to read to its end.
pub(super) fn some_of<T: ToString>(items: &[T]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = items.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = items.len().saturating_sub(SHOWN);
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    format!("{}{more}", shown.join(", "))
}
