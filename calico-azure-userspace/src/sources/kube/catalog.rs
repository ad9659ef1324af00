//! Follows every kind that is served, from when it is to when it no longer is.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::Timing;
use super::backoff::{Backoff, between};
use super::client::{Api, Failure};
use super::definitions::{self, DefinitionSink, Definitions};
use super::follow::{Follower, SHORT, Sink, Target, WHOLE};
use super::hub::{Hub, problem};
use super::protobuf;
use super::served::{
    self, Choice, Customs, Groups, Place, Resources, Version, Versions, api_path, is_ambiguous,
    is_certainly_gone,
};
use super::starting::Start;
use super::status::KubeStatus;
use super::table::Table;
use crate::model::api::{ApiObject, ApiReader};
use crate::model::{Kind, Problem};

/// Looks in a row that must miss a kind for it to be gone, where definitions cannot be seen.
const MISSED: u32 = 3;
/// As the model has it, finished pods do not matter; there may be many of them.
const UNFINISHED: &str = "fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed";

/// What one kind's follower and others share.
struct Followed {
    place: Place,
    table: Rc<RefCell<Table>>,
    task: JoinHandle<()>,
    /// Looks in a row that did not find it.
    missed: u32,
}

pub(super) struct Catalog {
    api: Api,
    timing: Timing,
    hub: Rc<RefCell<Hub>>,
    status: Arc<KubeStatus>,
    definitions: Rc<RefCell<Definitions>>,
    /// Something suggests to look again.
    poke: Rc<Notify>,
    followed: BTreeMap<Kind, Followed>,
    start: Start,
}

/// How soon to look again.
enum Next {
    Soon,
    Poll,
    Seldom,
}

impl Catalog {
    pub(super) fn new(api: Api, timing: Timing, hub: Rc<RefCell<Hub>>, status: Arc<KubeStatus>) -> Self {
        Self {
            api,
            timing,
            hub,
            status,
            definitions: Rc::default(),
            poke: Rc::default(),
            followed: BTreeMap::new(),
            start: Start::default(),
        }
    }

    /// Never ends of its own accord.
    pub(super) async fn run(mut self) {
        let sink = DefinitionSink {
            definitions: Rc::clone(&self.definitions),
            hub: Rc::clone(&self.hub),
            poke: Rc::clone(&self.poke),
        };
        let target = definitions::target();
        spawn_local(Follower::new(self.api.clone(), self.timing, target, sink).run());
        let mut backoff = Backoff::new(self.timing.first_retry, self.timing.last_retry);
        let mut soon = Backoff::new(self.timing.first_retry, self.timing.last_retry);
        loop {
            // What is native and what is Calico's API server's shows only there.
            while self.definitions.borrow().customs().is_none() {
                self.poke.notified().await;
            }
            let wait = match self.look().await {
                Ok(next) => {
                    backoff.reset();
                    self.hub.borrow_mut().succeeded("discovery");
                    match next {
                        Next::Soon => soon.next(None),
                        Next::Poll => {
                            soon.reset();
                            between(self.timing.poll / 2, self.timing.poll)
                        }
                        Next::Seldom => {
                            soon.reset();
                            between(self.timing.seldom / 2, self.timing.seldom)
                        }
                    }
                }
                Err(failure) => {
                    let wait = backoff.next(failure.retry_after());
                    let mut hub = self.hub.borrow_mut();
                    hub.failed("discovery", "/apis", &failure, backoff.failures());
                    wait
                }
            };
            if timeout(wait, self.poke.notified()).await.is_ok() {
                // Definitions come in bursts, and are served a moment after they are told of.
                sleep(self.timing.settle).await;
            }
        }
    }

    /// Asks what is served, and acts accordingly.
    async fn look(&mut self) -> Result<Next, Failure> {
        // Asked before: what is served then is all of it.
        let unready = self.start.ask(&self.api).await?;
        let is_starting = unready.is_some();
        self.hub.borrow_mut().refuse("readiness", unready);
        if is_starting {
            return Ok(Next::Soon);
        }
        let versions = self.discover().await?;
        let Some(customs) = self.definitions.borrow().customs() else {
            return Ok(Next::Soon);
        };
        let mut next = match customs {
            Customs::Known(_) => Next::Seldom,
            Customs::Hidden => Next::Poll,
        };
        let mut expected = BTreeSet::new();
        let mut awaited = Vec::new();
        let mut is_known = true;
        for (kind, choice) in served::choose(&versions, &customs) {
            match choice {
                Choice::At(place) => {
                    self.follow(kind, place);
                    expected.insert(kind);
                }
                Choice::Nowhere => {
                    if self.miss(kind, &customs) {
                        next = Next::Soon;
                    }
                }
                Choice::Unknown | Choice::Doubtful | Choice::Soon => {
                    next = Next::Soon;
                    // What is followed already goes on; what will never be served, or has no objects, holds nothing up.
                    if self.followed.contains_key(&kind) {
                        expected.insert(kind);
                    } else if choice == Choice::Unknown {
                        is_known = false;
                    } else if choice == Choice::Soon
                        && !self.status.in_sync()
                        && self.will_be_served(kind, &customs).await?
                    {
                        awaited.push(kind.as_str());
                    }
                }
            }
        }
        let mut hub = self.hub.borrow_mut();
        let unknown: Vec<&str> = versions
            .iter()
            .filter(|(_, version)| **version == Version::Unknown)
            .map(|(name, _)| name.as_str())
            .collect();
        hub.refuse("API groups", silent_groups(&unknown));
        hub.refuse("Definitions", not_served(&awaited));
        hub.refuse("Calico's API", ambiguity(&versions, &customs));
        hub.expect((is_known && awaited.is_empty()).then_some(expected));
        Ok(next)
    }

    /// A server that has just started knows what is defined before it serves it, and policy must not lapse meanwhile.
    async fn will_be_served(&self, kind: Kind, customs: &Customs) -> Result<bool, Failure> {
        for (name, version) in served::definitions(kind, customs) {
            let found: definitions::Found = self.json(&definitions::path(&name)).await?;
            if found.serves(version) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn discover(&self) -> Result<Versions, Failure> {
        let groups: Groups = self.json("/apis").await?;
        let there: BTreeSet<&str> = groups.versions().chain(["v1"]).collect();
        let mut versions = Versions::new();
        for name in served::interesting() {
            if !there.contains(name) {
                continue;
            }
            let version = match self.json::<Resources>(&api_path(name)).await {
                Ok(resources) => Version::Serves(resources.listed()),
                // It went while we looked.
                Err(failure) if failure.code() == Some(404) => continue,
                Err(failure @ (Failure::Lost(_) | Failure::Silent(_))) => return Err(failure),
                Err(failure) => {
                    tracing::debug!(%failure, "discovery of {name}");
                    Version::Unknown
                }
            };
            versions.insert(name.to_owned(), version);
        }
        Ok(versions)
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let body = self.api.get(path, WHOLE.list).await?;
        serde_json::from_slice(&body).map_err(|error| Failure::Garbled(format!("{path}: {error}")))
    }

    /// Reads the kind from this place, if it is not done already.
    fn follow(&mut self, kind: Kind, place: Place) {
        let table = match self.followed.get_mut(&kind) {
            Some(followed) if followed.place.api_version == place.api_version => {
                followed.place = place;
                followed.missed = 0;
                return;
            }
            Some(followed) => {
                followed.task.abort();
                tracing::info!("{} is read from {} now", kind.as_str(), place.api_version);
                Rc::clone(&followed.table)
            }
            None => {
                let table = Table::new(kind, Rc::clone(&self.hub), Arc::clone(&self.status));
                Rc::new(RefCell::new(table))
            }
        };
        table.borrow_mut().set_api_version(&place.api_version);
        let fields = protobuf::schema_of(kind);
        let target = Target {
            path: place.path(kind),
            selector: if kind == Kind::Pod { UNFINISHED } else { "" },
            reader: ApiReader::new(Some(kind)),
            accept: if fields.is_some() { SHORT } else { WHOLE },
            fields,
        };
        let sink = TableSink {
            kind,
            table: Rc::clone(&table),
            hub: Rc::clone(&self.hub),
            status: Arc::clone(&self.status),
            poke: Rc::clone(&self.poke),
            lists: 0,
        };
        let task = spawn_local(Follower::new(self.api.clone(), self.timing, target, sink).run());
        let followed = Followed {
            place,
            table,
            task,
            missed: 0,
        };
        self.followed.insert(kind, followed);
    }

    /// The kind is served by nobody. Believed at once only if its definition is gone: a server that has just started
    /// does not know yet what it serves, and policy must not lapse meanwhile. Returns whether to look again.
    fn miss(&mut self, kind: Kind, customs: &Customs) -> bool {
        let Some(followed) = self.followed.get_mut(&kind) else {
            return false;
        };
        followed.missed += 1;
        if followed.missed < MISSED && !is_certainly_gone(kind, &followed.place, customs) {
            return true;
        }
        if let Some(followed) = self.followed.remove(&kind) {
            followed.task.abort();
            followed.table.borrow_mut().clear();
            self.hub.borrow_mut().forget(kind, kind.as_str());
            tracing::info!("{} is served no longer", kind.as_str());
        }
        false
    }
}

fn not_served(awaited: &[&str]) -> Option<Problem> {
    let names = awaited.join(", ");
    let message = format!("{names}: defined, and not served yet; nothing new is enforced before");
    let help = "see `kubectl get customresourcedefinitions`, if this stays";
    (!awaited.is_empty()).then(|| problem("Definitions", message, help.to_owned()))
}

fn silent_groups(unknown: &[&str]) -> Option<Problem> {
    let names = unknown.join(", ");
    let message = format!("{names}: the server of this API does not answer, so what it holds is not known");
    let help = "see `kubectl get apiservices`";
    (!unknown.is_empty()).then(|| problem("API groups", message, help.to_owned()))
}

fn ambiguity(versions: &Versions, customs: &Customs) -> Option<Problem> {
    let message = "both projectcalico.org/v3 and crd.projectcalico.org/v1 are served, and which of them stores Calico's objects \
                   cannot be told: the latter is read";
    let help = "add {apiGroups: [\"apiextensions.k8s.io\"], resources: [\"customresourcedefinitions\"], verbs: [\"list\", \
                \"watch\"]} to the agent's ClusterRole";
    is_ambiguous(versions, customs).then(|| problem("Calico's API", message.to_owned(), help.to_owned()))
}

struct TableSink {
    kind: Kind,
    table: Rc<RefCell<Table>>,
    hub: Rc<RefCell<Hub>>,
    status: Arc<KubeStatus>,
    poke: Rc<Notify>,
    /// Begun so far.
    lists: u64,
}

impl Sink for TableSink {
    fn begin(&mut self) {
        self.table.borrow_mut().begin();
        let relists = self.lists;
        self.lists += 1;
        self.status.edit(self.kind, |status| status.relists = relists);
    }

    fn upsert(&mut self, object: ApiObject<'_>) {
        self.table.borrow_mut().upsert(object);
    }

    fn delete(&mut self, object: &ApiObject<'_>) {
        self.table.borrow_mut().delete(object);
    }

    fn end(&mut self) {
        self.table.borrow_mut().end();
    }

    fn heard(&mut self) {
        self.table.borrow().heard();
    }

    fn wants_list(&self) -> bool {
        self.table.borrow().must_list()
    }

    fn failed(&mut self, path: &str, failure: &Failure, times: u32) {
        self.status.edit(self.kind, |status| {
            status.errors += 1;
            status.last_error = Some(failure.to_string());
        });
        if failure.code() == Some(404) {
            // Perhaps it is served no longer.
            self.poke.notify_one();
        }
        let mut hub = self.hub.borrow_mut();
        hub.failed(self.kind.as_str(), path, failure, times);
    }

    fn succeeded(&mut self) {
        self.hub.borrow_mut().succeeded(self.kind.as_str());
    }
}
