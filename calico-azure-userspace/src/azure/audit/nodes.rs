//! What Kubernetes itself says of its nodes' network.

use crate::azure::finding::{Check, Finding};
use crate::azure::snapshot::Snapshot;

pub(super) fn check(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    for node in snapshot.nodes.iter() {
        if let Some(why) = &node.unavailable {
            let evidence = format!("its condition NetworkUnavailable is True: {why}");
            findings.push(Finding::new(
                Check::NetworkUnavailable,
                format!("node/{}", node.name),
                evidence,
            ));
        }
    }
}
