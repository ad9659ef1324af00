//! CustomResourceDefinitions: only their names matter, and that one came or went; and at the start, whether what is not served will be.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use serde::Deserialize;
use tokio::sync::Notify;

use super::client::Failure;
use super::follow::{METADATA, Sink, Target};
use super::hub::Hub;
use super::served::Customs;
use crate::model::api::{ApiObject, ApiReader};

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAME: &str = "CustomResourceDefinition";

pub(super) fn target() -> Target {
    Target {
        path: PATH.to_owned(),
        selector: "",
        reader: ApiReader::new(None),
        accept: METADATA,
        fields: None,
    }
}

/// Where to read one of them; by a list, as that is the right that agents have.
pub(super) fn path(name: &str) -> String {
    format!("{PATH}?fieldSelector=metadata.name%3D{name}")
}

/// One of them, or none, as a list.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    items: Vec<Definition>,
}

#[derive(Debug, Deserialize)]
struct Definition {
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Spec {
    versions: Vec<Version>,
}

#[derive(Debug, Deserialize)]
struct Version {
    name: String,
    served: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Found {
    /// Whether a version is, or will in a moment be, served: the server has found nothing wrong with the definition.
    pub(super) fn serves(&self, version: &str) -> bool {
        self.items.iter().any(|definition| {
            let Definition { spec, status } = definition;
            let mut conditions = status.conditions.iter();
            let established =
                conditions.any(|condition| condition.kind == "Established" && condition.status == "True");
            let mut versions = spec.versions.iter();
            established && versions.any(|known| known.name == version && known.served)
        })
    }
}

/// What is known of them.
#[derive(Default)]
pub(super) struct Definitions {
    names: BTreeSet<String>,
    /// Of a list that is not complete yet.
    listed: BTreeSet<String>,
    state: Known,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Nothing,
    All,
    Hidden,
}

impl Definitions {
    pub(super) fn customs(&self) -> Option<Customs> {
        match self.state {
            Known::Nothing => None,
            Known::All => Some(Customs::Known(self.names.clone())),
            Known::Hidden => Some(Customs::Hidden),
        }
    }
}

pub(super) struct DefinitionSink {
    pub(super) definitions: Rc<RefCell<Definitions>>,
    pub(super) hub: Rc<RefCell<Hub>>,
    pub(super) poke: Rc<Notify>,
}

impl Sink for DefinitionSink {
    fn begin(&mut self) {
        self.definitions.borrow_mut().listed.clear();
    }

    fn upsert(&mut self, object: ApiObject<'_>) {
        let mut definitions = self.definitions.borrow_mut();
        let name = object.name().to_owned();
        definitions.listed.insert(name.clone());
        if definitions.state == Known::All {
            definitions.names.insert(name);
            self.poke.notify_one();
        }
    }

    fn delete(&mut self, object: &ApiObject<'_>) {
        let mut definitions = self.definitions.borrow_mut();
        definitions.listed.remove(object.name());
        definitions.names.remove(object.name());
        self.poke.notify_one();
    }

    fn end(&mut self) {
        let mut definitions = self.definitions.borrow_mut();
        definitions.names = std::mem::take(&mut definitions.listed);
        definitions.state = Known::All;
        self.poke.notify_one();
    }

    fn heard(&mut self) {}

    fn failed(&mut self, path: &str, failure: &Failure, times: u32) {
        if matches!(failure.code(), Some(403 | 404)) {
            // Not needed: kinds are then looked for every few seconds.
            let mut definitions = self.definitions.borrow_mut();
            if definitions.state == Known::Nothing {
                definitions.state = Known::Hidden;
                self.poke.notify_one();
            }
            return;
        }
        let mut hub = self.hub.borrow_mut();
        hub.failed(NAME, path, failure, times);
    }

    fn succeeded(&mut self) {
        self.hub.borrow_mut().succeeded(NAME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_has_accepted_will_be_served() {
        let found = |conditions: &str| -> Found {
            let definition = format!(
                r#"{{"metadata":{{}},"spec":{{"versions":[{{"name":"v1","served":true}},{{"name":"v2","served":false}}]}}{conditions}}}"#
            );
            serde_json::from_str(&format!(r#"{{"items":[{definition}]}}"#)).unwrap()
        };
        let established = |status: &str| {
            format!(r#","status":{{"conditions":[{{"type":"Established","status":"{status}"}}]}}"#)
        };
        assert!(found(&established("True")).serves("v1"));
        assert!(!found(&established("True")).serves("v2"));
        assert!(!found(&established("False")).serves("v1"));
        assert!(!found("").serves("v1"));
        assert!(!Found { items: Vec::new() }.serves("v1"));
    }
}
