//! CustomResourceDefinitions: only their names matter, and that one came or went.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

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
