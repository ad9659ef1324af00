//! Specs of objects in which what is wrong with one field does not concern the others.

use super::TOP;
use crate::model::report::{Fields, Read, Report};
use crate::model::yaml::Node;

/// Reads the spec if there is one; unknown fields in it are reported.
pub(super) fn of_spec<'n, 't, T>(
    report: &mut Report<'t>,
    object: &'n Node<'t>,
    known: &[&'static str],
    read: impl FnOnce(&mut Report<'t>, &Fields<'n, 't>) -> T,
) -> Option<T> {
    let _reported = report.strict(object, &TOP);
    let spec = object.get("spec")?;
    report.within("spec", |report| {
        let fields = report.strict(spec, known).ok()?;
        Some(read(report, &fields))
    })
}

/// A field that is as good as absent if it is wrong.
pub(super) fn one<'n, 't, T>(
    report: &mut Report<'t>,
    fields: &Fields<'n, 't>,
    key: &'static str,
    read: impl FnOnce(&mut Report<'t>, &'n Node<'t>) -> Read<T>,
) -> Option<T> {
    fields.read(report, key, read).ok().flatten()
}

/// A string that says something.
pub(super) fn text<'n, 't>(
    report: &mut Report<'t>,
    fields: &Fields<'n, 't>,
    key: &'static str,
) -> Option<&'n str> {
    one(report, fields, key, Report::string).filter(|text| !text.is_empty())
}

/// The good items of a list; `None` if there is no list.
pub(super) fn each<'n, 't, T>(
    report: &mut Report<'t>,
    fields: &Fields<'n, 't>,
    key: &'static str,
    read: impl FnMut(&mut Report<'t>, &'n Node<'t>) -> Read<T>,
) -> Option<Vec<T>> {
    one(report, fields, key, |report, node| {
        let list = report.list(node)?;
        Ok(report.each(list, read).0)
    })
}
