//! Parts of objects in which unknown fields are everyday, and what is wrong with one field does not concern the others.

use super::report::{Fields, Read, Report};
use super::yaml::Node;

/// A mapping below the object's top, like its spec.
#[derive(Clone, Copy)]
pub(super) struct Section<'n, 't> {
    name: &'static str,
    fields: Fields<'n, 't>,
}

impl<'n, 't> Section<'n, 't> {
    /// Empty if it is missing or wrong (which is then reported).
    pub(super) fn of(report: &mut Report<'t>, object: &'n Node<'t>, name: &'static str) -> Self {
        let fields = object
            .get(name)
            .and_then(|node| report.within(name, |report| report.lenient(node)).ok());
        let fields = fields.unwrap_or(Fields {
            entries: &[],
            place: object.place,
            complete: true,
        });
        Self { name, fields }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        self.fields.get(key)
    }

    /// A field that is as good as absent if it is wrong.
    pub(super) fn read<T>(
        &self,
        report: &mut Report<'t>,
        key: &'static str,
        read: impl FnOnce(&mut Report<'t>, &'n Node<'t>) -> Read<T>,
    ) -> Option<T> {
        report
            .within(self.name, |report| self.fields.read(report, key, read))
            .ok()
            .flatten()
    }

    /// A string that says something.
    pub(super) fn text(&self, report: &mut Report<'t>, key: &'static str) -> Option<&'n str> {
        self.read(report, key, Report::string)
            .filter(|text| !text.is_empty())
    }

    /// The good items of a list.
    pub(super) fn each<T>(
        &self,
        report: &mut Report<'t>,
        key: &'static str,
        read: impl FnMut(&mut Report<'t>, &'n Node<'t>) -> Read<T>,
    ) -> Vec<T> {
        self.read(report, key, |report, node| good_items(report, node, read))
            .unwrap_or_default()
    }
}

/// The items of a list that can be read.
pub(super) fn good_items<'n, 't, T>(
    report: &mut Report<'t>,
    node: &'n Node<'t>,
    read: impl FnMut(&mut Report<'t>, &'n Node<'t>) -> Read<T>,
) -> Read<Vec<T>> {
    let list = report.list(node)?;
    Ok(report.each(list, read).0)
}
