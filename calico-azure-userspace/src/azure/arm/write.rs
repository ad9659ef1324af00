//! Brings the route table in step with the nodes. What others do meanwhile is looked for before each write, and so is whether we may.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{ArmError, Session, SessionError};
use crate::azure::nodes::NodeState;
use crate::azure::plan::{Change, Plan, applied, others_at_work, plan};
use crate::azure::snapshot::Snapshot;

/// Somebody else changed the table between our reading and writing it, so often in a row: they are at work, and we are in their way.
const CONTESTED: u32 = 8;
/// How often to ask whether we may go on.
const TICK: Duration = Duration::from_millis(100);

/// How to write, and whether.
pub struct Writing<'a> {
    /// The nodes as they are now; asked after each reading of the table. Else: why not, in words.
    pub nodes: &'a dyn Fn() -> Result<Vec<NodeState>, String>,
    /// Whether we may write; asked before each write, and all the time while something is waited for. Else: why not.
    pub may_write: &'a dyn Fn() -> Result<(), String>,
    pub deletions: bool,
    /// A cloud controller may be at work.
    pub beside: bool,
    /// For all of it.
    pub patience: Duration,
}

/// What writing came to.
#[derive(Debug, Default)]
pub struct Written {
    /// What was changed, as far as we did it and know of it, in order.
    pub changes: Vec<Change>,
    /// What was not ours to change.
    pub left: Plan,
    /// Writes that ARM took, and those that did not get through.
    pub writes: u32,
    pub failures: u32,
    /// Why the table is not in step, if it is not. What was written until then stays.
    pub stopped: Option<SessionError>,
}

/// What went wrong until now.
struct Trouble {
    begun: Instant,
    ends: Instant,
    /// In a row.
    contested: u32,
    expired: u32,
    last: String,
}

impl Trouble {
    fn late(&self) -> SessionError {
        SessionError::Late {
            after: self.begun.elapsed(),
            last: self.last.clone(),
        }
    }
}

impl Session {
    /// Writes what the plan says, reads the table and then the nodes again, and so on until there is nothing to write. Each write is of
    /// the whole table and only if nobody else has changed it since it was read; one that was not answered is not repeated, but looked
    /// for.
    pub fn reconcile(&self, mut snapshot: Snapshot, writing: &Writing<'_>) -> Written {
        let mut written = Written::default();
        let mut trouble = Trouble {
            begun: Instant::now(),
            ends: Instant::now() + writing.patience,
            contested: 0,
            expired: 0,
            last: "none".to_owned(),
        };
        loop {
            match self.step(&mut snapshot, writing, &trouble, &mut written) {
                Ok(true) => return written,
                Ok(false) => (trouble.contested, trouble.expired) = (0, 0),
                Err(error) => {
                    written.failures += 1;
                    if let Err(why) = self.endure(error, writing, &mut trouble) {
                        written.stopped = Some(why);
                        return written;
                    }
                }
            }
        }
    }

    /// One reading and, if there is anything to write, one write. Whether there was nothing.
    fn step(
        &self,
        snapshot: &mut Snapshot,
        writing: &Writing<'_>,
        trouble: &Trouble,
        written: &mut Written,
    ) -> Result<bool, SessionError> {
        let id = snapshot.table_id.clone();
        let table = self.guarded(writing, trouble, self.arm.route_table(&id))??;
        let table = table.ok_or_else(|| SessionError::TableGone(id.clone()))?;
        // After the table: whom a route in it was made for is among them, or gone.
        snapshot.nodes = (writing.nodes)().map_err(SessionError::Nodes)?;
        if let Some(name) = others_at_work(snapshot).first().filter(|_| !writing.beside) {
            return Err(SessionError::Others((*name).to_owned()));
        }
        let (body, etag) = (table.body.clone(), table.etag.clone());
        snapshot.table = Some(table);
        let mut now = plan(snapshot);
        if !writing.deletions {
            now = now.without_deletions();
        }
        if now.changes.is_empty() {
            written.left = now;
            return Ok(true);
        }
        let body = applied(body, &now.changes);
        (writing.may_write)().map_err(SessionError::Stopped)?;
        self.guarded(writing, trouble, self.arm.put_route_table(&id, &body, &etag))??;
        written.writes += 1;
        written.changes.extend(now.changes);
        Ok(false)
    }

    /// Waits where trying again may help, but no longer than there is patience.
    fn endure(
        &self,
        error: SessionError,
        writing: &Writing<'_>,
        trouble: &mut Trouble,
    ) -> Result<(), SessionError> {
        let error = match error {
            SessionError::Arm(error) if error.passes() => error,
            other => return Err(other),
        };
        trouble.last = error.to_string();
        let mut wait = self.timing.pause;
        match error {
            ArmError::Changed { .. } => {
                trouble.contested += 1;
                wait /= 4;
            }
            ArmError::Throttled { wait: asked, .. } => wait = asked,
            ArmError::Expired { .. } => trouble.expired += 1,
            _ => {}
        }
        if trouble.contested == CONTESTED {
            return Err(SessionError::Contested(CONTESTED));
        }
        // A new token was refused, too.
        if trouble.expired == 2 {
            return Err(error.into());
        }
        if Instant::now() + wait > trouble.ends {
            return Err(trouble.late());
        }
        // Made in the loop that it waits in.
        self.guarded(writing, trouble, async { sleep(wait).await })
    }

    /// Does something for as long as we may, and have time. What was sent until then may have been done.
    fn guarded<T>(
        &self,
        writing: &Writing<'_>,
        trouble: &Trouble,
        work: impl Future<Output = T>,
    ) -> Result<T, SessionError> {
        let guard = async {
            loop {
                if let Err(why) = (writing.may_write)() {
                    return SessionError::Stopped(why);
                }
                if Instant::now() >= trouble.ends {
                    return trouble.late();
                }
                sleep(TICK).await;
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                why = guard => Err(why),
                done = work => Ok(done),
            }
        })
    }
}
