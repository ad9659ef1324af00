//! What every object has: a name, a namespace, labels, annotations.

use super::report::{Fields, Read, Report, Reported};
use super::scalars;
use super::types::{Labels, label};
use super::yaml::{Node, Value};

/// Of one object.
pub(super) struct Metadata<'n, 't> {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    fields: Option<Fields<'n, 't>>,
}

impl<'n, 't> Metadata<'n, 't> {
    /// Reads name and namespace. An object without a name gets one from its place, because it may be a policy that
    /// denies something; one without a usable namespace is nothing at all.
    pub(super) fn read(report: &mut Report<'t>, object: &'n Node<'t>) -> Read<Self> {
        let file = report.file();
        let stand_in = || {
            let file = file.file_name().unwrap_or_default().to_string_lossy();
            format!("{file}:{}", object.place.line)
        };
        let Some(metadata) = object.get("metadata") else {
            report.error(
                object.place,
                "metadata is missing: expected at least metadata.name",
            );
            return Ok(Self {
                name: stand_in(),
                namespace: None,
                fields: None,
            });
        };
        report.within("metadata", |report| {
            let Ok(fields) = report.lenient(metadata) else {
                return Ok(Self {
                    name: stand_in(),
                    namespace: None,
                    fields: None,
                });
            };
            let name = match fields.read(report, "name", scalars::name) {
                Ok(Some(name)) => name.to_owned(),
                Ok(None) if fields.get("generateName").is_some() => {
                    let help = "generateName makes a new object each time: give it a name";
                    report.error_with_help(fields.place, "name is missing", help);
                    stand_in()
                }
                Ok(None) => {
                    report.error(fields.place, "name is missing");
                    stand_in()
                }
                Err(Reported) => stand_in(),
            };
            let namespace = fields
                .read(report, "namespace", scalars::name)?
                .map(str::to_owned);
            Ok(Self {
                name,
                namespace,
                fields: Some(fields),
            })
        })
    }

    /// Of what a template makes, which needs no name.
    pub(super) fn of_template(report: &mut Report<'t>, template: &'n Node<'t>, name: String) -> Self {
        let fields = template
            .get("metadata")
            .and_then(|metadata| report.within("metadata", |report| report.lenient(metadata).ok()));
        Self {
            name,
            namespace: None,
            fields,
        }
    }

    /// Labels; a value that is no string is reported, and taken as it is written.
    pub(super) fn labels(&self, report: &mut Report<'t>) -> Labels {
        report.within("metadata", |report| self.strings(report, "labels"))
    }

    pub(super) fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        self.fields.and_then(|fields| fields.get(key))
    }

    fn strings(&self, report: &mut Report<'t>, key: &'static str) -> Labels {
        let Some(node) = self.get(key) else {
            return Labels::new();
        };
        let strings = report.within(key, |report| report.strings(node));
        strings.unwrap_or_default()
    }

    /// The annotation's value, if it is there.
    pub(super) fn annotation(&self, key: &str) -> Option<&'n Node<'t>> {
        self.entry("annotations", key)
    }

    /// The label's value, if it is there.
    pub(super) fn label(&self, key: &str) -> Option<&'n Node<'t>> {
        self.entry("labels", key)
    }

    fn entry(&self, field: &str, key: &str) -> Option<&'n Node<'t>> {
        let Value::Map(entries) = &self.get(field)?.value else {
            return None;
        };
        entries
            .iter()
            .rev()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node)
    }

    pub(super) fn is_being_deleted(&self) -> bool {
        self.get("deletionTimestamp").is_some()
    }

    /// The place of the labels, for problems about them.
    pub(super) fn labels_node(&self) -> Option<&'n Node<'t>> {
        self.get("labels")
    }
}

/// Takes out keys that stand for inherited labels: a pod that carries one pretends to be in another namespace.
pub(super) fn without_forged(report: &mut Report<'_>, metadata: &Metadata<'_, '_>, labels: &mut Labels) {
    let forged = |key: &String| {
        key.starts_with(label::NAMESPACE_PREFIX) || key.starts_with(label::SERVICE_ACCOUNT_PREFIX)
    };
    let keys: Vec<String> = labels.keys().filter(|key| forged(key)).cloned().collect();
    for key in keys {
        labels.remove(&key);
        if let Some(node) = metadata.labels_node() {
            let entry = match &node.value {
                Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
                _ => None,
            };
            let place = entry.map_or(node.place, |entry| entry.key_place);
            let message =
                format!("label {key} is ignored: only namespaces and service accounts give such labels");
            report.warning(place, message, "remove it");
        }
    }
}
