//! IPPool.

use super::fields;
use crate::model::metadata::Metadata;
use crate::model::report::{Read, Report, Reported};
use crate::model::scalars;
use crate::model::types::IpPool;
use crate::model::yaml::Node;

/// A pool is nothing without its addresses. How they get to other nodes is not policy's business.
pub(super) fn ip_pool<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
) -> Read<IpPool> {
    let Some(spec) = object.get("spec") else {
        return Err(report.error(object.place, "spec is missing: expected at least spec.cidr"));
    };
    report.within("spec", |report| {
        let spec = report.lenient(spec)?;
        let cidr = spec.read(report, "cidr", scalars::net);
        let disabled = fields::one(report, &spec, "disabled", Report::boolean);
        let nat_outgoing = fields::one(report, &spec, "natOutgoing", Report::boolean);
        match cidr {
            Ok(Some(cidr)) => Ok(IpPool {
                name: metadata.name.clone(),
                cidr,
                disabled: disabled.unwrap_or_default(),
                nat_outgoing: nat_outgoing.unwrap_or_default(),
            }),
            Ok(None) => Err(report.error(spec.place, "cidr is missing")),
            Err(Reported) => Err(Reported),
        }
    })
}
