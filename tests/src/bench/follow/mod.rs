//! What following a cluster's API costs: an agent that follows a stand-in with a large cluster's objects, and a real API server that
//! many agents follow.

mod many;
mod objects;
mod one;

use anyhow::Result;

use super::Scope;
use super::report::Report;

pub(super) fn run(scope: &Scope) -> Result<Report> {
    let mut report = Report::default();
    one::run(scope, &mut report)?;
    many::run(scope, &mut report)?;
    Ok(report)
}
