//! What changes meanwhile: a policy twice a second, pods, and agents that are killed.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::world::{SERVED, TOGGLED, World};
use crate::lab::probe::{self, Outcome, Prober};

const TICK: Duration = Duration::from_millis(4);
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a verdict is watched after it has changed.
const HOLD: Duration = Duration::from_millis(200);
const CHURN: Duration = Duration::from_secs(4);
const KILL: Duration = Duration::from_secs(20);
/// What is under way when a verdict changes may still be answered.
const GRACE: Duration = Duration::from_millis(60);
/// Pods that come and go, at the same time.
const VISITORS: usize = 4;

/// How often.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    pub(super) edits: u64,
    pub(super) pods: u64,
    pub(super) kills: u64,
    /// Datagrams of ours that policy denied.
    pub(super) denied: u64,
    /// Datagrams of pods that had just come: those whose labels were not known yet were dropped for that.
    pub(super) early: u64,
}

/// As text.
pub(super) struct Told<'a>(pub(super) &'a Done);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Done {
            edits, pods, kills, ..
        } = self.0;
        write!(f, "edits {edits} pods {pods} kills {kills}")
    }
}

/// Who changes what, and when next.
pub(super) struct Changes {
    done: Done,
    probers: Vec<Prober>,
    allow: bool,
    visitors: Vec<String>,
    churn: Duration,
    kill: Duration,
}

impl Changes {
    pub(super) fn start(world: &World) -> Result<Self> {
        let mut changes = Self {
            done: Done::default(),
            probers: Vec::new(),
            allow: false,
            visitors: Vec::new(),
            churn: Duration::ZERO,
            kill: KILL / 2,
        };
        changes.probe(world)?;
        Ok(changes)
    }

    pub(super) fn told(&self) -> String {
        Told(&self.done).to_string()
    }

    /// Datagrams to the toggled port, on one node and across nodes.
    fn probe(&mut self, world: &World) -> Result<()> {
        for (from, to, v6) in [("client-1", "server-1", false), ("client-1", "server-2", true)] {
            let (ns, to) = (world.ns(from)?, world.address(to, v6, TOGGLED)?);
            self.probers.push(Prober::start(&ns, to, TICK)?);
        }
        Ok(())
    }

    /// Ends the probers and adds what was denied of theirs.
    fn settle(&mut self) {
        for prober in self.probers.drain(..) {
            let samples = prober.finish(Duration::from_millis(100));
            let denied = samples.iter().filter(|sample| sample.answered.is_none()).count();
            self.done.denied += denied as u64;
        }
    }

    /// One edit, and what else is due.
    pub(super) fn step(
        &mut self,
        world: &mut World,
        now: Duration,
        findings: &mut Vec<String>,
    ) -> Result<()> {
        if now >= self.kill {
            self.kill = now + KILL;
            self.crash(world, findings)?;
        } else {
            self.edit(world, findings)?;
        }
        if now >= self.churn {
            self.churn = now + CHURN;
            self.churn(world, findings)?;
        }
        // A prober remembers each of its datagrams.
        if self.done.edits.is_multiple_of(64) {
            self.settle();
            self.probe(world)?;
        }
        Ok(())
    }

    fn edit(&mut self, world: &World, findings: &mut Vec<String>) -> Result<()> {
        self.allow = !self.allow;
        world.toggle(self.allow)?;
        self.done.edits += 1;
        self.obeyed(findings);
        Ok(())
    }

    /// Waits until the last edit is in force, and watches that it stays so.
    fn obeyed(&self, findings: &mut Vec<String>) {
        let edited = Instant::now();
        for prober in &self.probers {
            let seen = if self.allow {
                prober.wait_answered(edited, PATIENCE)
            } else {
                prober.wait_silent(GRACE, PATIENCE)
            };
            if let Err(error) = seen {
                findings.push(format!("edit {}: {error}", self.done.edits));
            }
        }
        self.holds(findings, "after an edit");
    }

    /// Whether all verdicts stay what they are.
    fn holds(&self, findings: &mut Vec<String>, when: &str) {
        let from = Instant::now();
        std::thread::sleep(HOLD);
        let to = Instant::now();
        // A machine that stands still for a moment is not the programs' fault.
        std::thread::sleep(GRACE);
        for prober in &self.probers {
            let samples = prober.samples();
            let watched = samples.iter().rev().take_while(|sample| sample.sent >= from);
            let wrong = watched
                .filter(|sample| sample.sent < to && sample.answered.is_some() != self.allow)
                .count();
            if wrong > 0 {
                let verdict = if self.allow { "denied" } else { "allowed" };
                findings.push(format!(
                    "edit {}, {when}: {wrong} datagrams were {verdict} that should not have been",
                    self.done.edits
                ));
            }
        }
    }

    /// An agent is killed, misses an edit, comes back and catches up.
    fn crash(&mut self, world: &mut World, findings: &mut Vec<String>) -> Result<()> {
        let node = if self.done.kills.is_multiple_of(2) {
            "node-1"
        } else {
            "node-2"
        };
        world.cluster.agent(node)?.kill9()?;
        self.done.kills += 1;
        self.holds(findings, "without an agent");
        self.allow = !self.allow;
        world.toggle(self.allow)?;
        self.done.edits += 1;
        let agent = world.cluster.agent(node)?;
        agent.restart()?;
        if let Err(error) = agent.wait_ready(PATIENCE) {
            findings.push(error.to_string());
        }
        self.obeyed(findings);
        Ok(())
    }

    /// A pod comes, is a client or a stranger from its first packet on, and an older one goes.
    fn churn(&mut self, world: &mut World, findings: &mut Vec<String>) -> Result<()> {
        if self.visitors.len() >= VISITORS {
            let name = self.visitors.remove(0);
            world.cluster.delete_pod(&format!("soak/{name}"))?;
        }
        let number = self.done.pods;
        let client = !number.is_multiple_of(3);
        let (app, node) = (
            if client { "client" } else { "stranger" },
            if number.is_multiple_of(2) {
                "node-1"
            } else {
                "node-2"
            },
        );
        let name = format!("visitor-{number}");
        world.add(&name, app, node)?;
        self.done.pods += 1;
        let ns = world.ns(&name)?;
        for server in ["server-1", "server-2"] {
            let to = world.address(server, number % 4 < 2, SERVED)?;
            let begun = Instant::now();
            // A client is let through as soon as it is known.
            let mut seen = Outcome::Timeout;
            while !seen.reached() && begun.elapsed() < PATIENCE {
                seen = probe::udp(&ns, to.ip(), to.port(), Duration::from_millis(200))?;
                self.done.early += u64::from(!seen.reached());
                if !client {
                    break;
                }
            }
            if seen.reached() != client {
                findings.push(format!("{name}, a {app}, to {server}: {seen}"));
            }
        }
        self.visitors.push(name);
        Ok(())
    }

    /// Ends it with every verdict as it was last edited.
    pub(super) fn finish(mut self, world: &mut World, findings: &mut Vec<String>) -> Result<Done> {
        for name in std::mem::take(&mut self.visitors) {
            world.cluster.delete_pod(&format!("soak/{name}"))?;
        }
        self.holds(findings, "at the end");
        self.settle();
        Ok(self.done)
    }
}
