//! Staged policies: tables as if they were enforced, beside those that are. Flow records say what these would decide.
//!
//! A thread of its own makes them, so that enforced policy never waits for staged policy. There is none, and nothing is kept,
//! while no policy is staged.

use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;

use calico_azure_ebpf::abi;

use super::AgentError;
use crate::model::Resource;
use crate::observe::{FlowRecord, StagedVerdict};
use crate::policy::pending::{follow, pending};
use crate::policy::{Compiler, Direction, Event, Probe, Store, lookup};

/// The tables, for who has packets to ask about. Nothing while no policy is staged.
#[derive(Clone, Debug, Default)]
pub(super) struct StagedTables(Arc<Mutex<Option<Compiler>>>);

/// What the owner of all state tells the thread.
enum Message {
    Begin(Box<Store>),
    Event(Box<Event>),
    /// What came before belongs together.
    Update,
    End,
}

/// Follows what is known.
pub(super) struct Staged {
    sender: Sender<Message>,
    is_active: bool,
    has_changed: bool,
}

impl Staged {
    pub(super) fn start(tables: StagedTables) -> Result<Self, AgentError> {
        let (sender, messages) = mpsc::channel();
        thread::Builder::new()
            .name("staged".into())
            .spawn(move || run(&messages, &tables))
            .map_err(AgentError::Start)?;
        Ok(Self {
            sender,
            is_active: false,
            has_changed: false,
        })
    }

    /// Whether an event must be shown to [`Self::see`] once the store has taken it in.
    pub(super) fn wants(&self, event: &Event) -> bool {
        self.is_active || matches!(event, Event::Upsert(Resource::Policy(policy)) if policy.staged.is_some())
    }

    /// The store has taken in an event that is wanted.
    pub(super) fn see(&mut self, store: &Store, event: &Event) {
        self.has_changed = true;
        if !self.is_active {
            self.is_active = true;
            self.send(Message::Begin(Box::new(
                pending(store).unwrap_or_else(|| store.clone()),
            )));
            return;
        }
        let is_staged = |kind: crate::model::Kind| kind.enforced().is_some();
        if matches!(event, Event::Delete(key) if is_staged(key.kind))
            && store.policies().all(|policy| policy.staged.is_none())
        {
            self.is_active = false;
            self.send(Message::End);
            return;
        }
        for event in follow(store, event) {
            self.send(Message::Event(Box::new(event)));
        }
    }

    /// Everything that belongs together was seen.
    pub(super) fn update(&mut self) {
        if std::mem::take(&mut self.has_changed) && self.is_active {
            self.send(Message::Update);
        }
    }

    fn send(&self, message: Message) {
        if self.sender.send(message).is_err() {
            tracing::error!(
                "the thread of staged policies has ended; flow records say nothing of them any more"
            );
        }
    }
}

fn run(messages: &Receiver<Message>, tables: &StagedTables) {
    while let Ok(first) = messages.recv() {
        let mut compiler = tables.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut must_update = false;
        for message in std::iter::once(first).chain(messages.try_iter()) {
            match message {
                Message::Begin(store) => {
                    let mut new = Compiler::default();
                    if let Err(error) = new.follow(&store) {
                        tracing::error!(%error, "no tables of staged policies");
                    }
                    *compiler = Some(new);
                }
                Message::End => *compiler = None,
                Message::Event(event) => {
                    if let Some(compiler) = &mut *compiler {
                        compiler.apply(*event);
                    }
                }
                Message::Update => must_update = true,
            }
        }
        if let Some(compiler) = compiler.as_mut().filter(|_| must_update) {
            if let Err(error) = compiler.update() {
                tracing::error!(%error, "the tables of staged policies are not up to date");
            }
            // No kernel holds them.
            compiler.applied();
        }
    }
}

impl StagedTables {
    /// What would decide about a packet that policy decided about.
    pub(super) fn judge(&self, event: &abi::Event, record: &FlowRecord) -> Option<StagedVerdict> {
        const ALLOW: u8 = abi::Reason::PolicyAllow as u8;
        const DENY: u8 = abi::Reason::PolicyDeny as u8;
        if !matches!(event.reason, ALLOW | DENY) {
            return None;
        }
        let compiler = match self.0.try_lock() {
            Ok(compiler) => compiler,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Some(StagedVerdict::UNKNOWN),
        };
        let compiler = compiler.as_ref()?;
        let (direction, own, peer) = sides(event.hook, record.src?, record.dst?)?;
        let probe = Probe {
            peer,
            own,
            protocol: event.protocol,
            sport: event.sport,
            dport: event.dport,
        };
        let found = lookup::verdict(compiler.desired(), event.ifindex, direction, &probe);
        Some(StagedVerdict {
            verdict: match found.reason {
                abi::Reason::PolicyAllow => "allow",
                abi::Reason::PolicyDeny => "deny",
                _ => StagedVerdict::UNKNOWN.verdict,
            },
            rule: compiler.rules().get(&found.rule).map(ToString::to_string),
        })
    }
}

fn sides(hook: u8, src: IpAddr, dst: IpAddr) -> Option<(Direction, IpAddr, IpAddr)> {
    match abi::Hook::try_from(hook).ok()? {
        abi::Hook::FromWorkload => Some((Direction::Egress, src, dst)),
        abi::Hook::ToWorkload => Some((Direction::Ingress, dst, src)),
        _ => None,
    }
}
