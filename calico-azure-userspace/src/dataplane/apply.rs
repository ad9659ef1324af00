//! Carries plans out.

use std::io;
use std::time::{Duration, Instant};

use super::image::Image;
use super::io::MapIo;
use super::op::Op;
use super::plan::{Plan, PlanError, Settings, plan_change};
use crate::policy::{Change, Desired, Reserved};

/// An apply did not get through. Verdicts are the old ones if it failed before the flip, the new ones if after it;
/// the next apply continues from what the kernel really holds.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{0}")]
    Plan(#[from] PlanError),
    #[error("{} of map {map}: {source}{}", if *.remove { "removing an entry" } else { "writing an entry" }, full(.source))]
    Write {
        map: &'static str,
        remove: bool,
        source: io::Error,
    },
    #[error("reading the kernel's tables: {0}")]
    Read(#[source] io::Error),
}

fn full(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::E2BIG | libc::ENOSPC) => {
            " (the map is full; the old policy stays in force: raise --table-entries, then restart the agent)"
        }
        _ => "",
    }
}

/// What an apply did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Map operations.
    pub operations: usize,
    /// Whether verdicts changed.
    pub flipped: bool,
    /// From the call to the flip: from then on every packet obeys.
    pub until_flip: Duration,
    /// For programs that may still have worked with what was in force before.
    pub waited: Duration,
    /// Everything, clearing up included.
    pub total: Duration,
}

/// What is in force, and what is left to clear up.
#[must_use = "the tables hold both the old and the new until `settle`"]
#[derive(Debug)]
pub struct Published {
    operations: usize,
    flipped: bool,
    settle: Vec<Op>,
    until_flip: Duration,
    begun: Instant,
}

impl Published {
    /// Whether verdicts changed.
    #[must_use]
    pub fn flipped(&self) -> bool {
        self.flipped
    }
}

/// The tables of one node, and the way to write them.
#[derive(Debug)]
pub struct Dataplane<I> {
    io: I,
    image: Image,
    /// An earlier apply stopped half-way, so the image must be read again first.
    dirty: bool,
}

impl<I: MapIo> Dataplane<I> {
    /// Reads what the kernel holds.
    ///
    /// # Errors
    /// [`ApplyError::Read`].
    pub fn open(io: I) -> Result<Self, ApplyError> {
        let image = Image::read(&io).map_err(ApplyError::Read)?;
        // An agent before may have ended between a flip and its grace period.
        io.wait_for_programs().map_err(ApplyError::Read)?;
        Ok(Self {
            io,
            image,
            dirty: false,
        })
    }

    /// Ids that the kernel holds.
    #[must_use]
    pub fn reserved(&self) -> Reserved {
        self.image.reserved()
    }

    /// What the kernel holds.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The way to write.
    pub fn io(&mut self) -> &mut I {
        &mut self.io
    }

    /// The way to read.
    #[must_use]
    pub fn io_ref(&self) -> &I {
        &self.io
    }

    /// Makes the kernel hold `desired`, whatever it holds now.
    ///
    /// # Errors
    /// [`ApplyError`]; see there for what is in force then.
    pub fn apply(&mut self, desired: &Desired, settings: Settings) -> Result<Applied, ApplyError> {
        let published = self.publish(desired, &Change::everything(), settings)?;
        self.settle(published)
    }

    /// Puts `desired` in force. Only what `change` names is looked at, so the change has to be all that happened since
    /// the last apply that got through; after one that did not, everything is looked at. [`Self::settle`] must follow
    /// before the next.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn publish(
        &mut self,
        desired: &Desired,
        change: &Change,
        settings: Settings,
    ) -> Result<Published, ApplyError> {
        let begun = Instant::now();
        let plan = if self.dirty {
            self.image = Image::read(&self.io).map_err(ApplyError::Read)?;
            self.io.wait_for_programs().map_err(ApplyError::Read)?;
            plan_change(&self.image, desired, &Change::everything(), settings)
        } else {
            plan_change(&self.image, desired, change, settings)
        };
        let Plan {
            prepare,
            flip,
            settle,
        } = plan?;
        let operations = prepare.len() + settle.len() + usize::from(flip.is_some());
        self.dirty = operations > 0;
        self.prepare(&prepare)?;
        self.run(flip.as_slice())?;
        Ok(Published {
            operations,
            flipped: flip.is_some(),
            settle,
            until_flip: begun.elapsed(),
            begun,
        })
    }

    /// Clears up after the flip: waits until no program works with what was in force before, then makes both slots of
    /// every entry equal and removes what nothing refers to.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn settle(&mut self, published: Published) -> Result<Applied, ApplyError> {
        let Published {
            operations,
            flipped,
            settle,
            until_flip,
            begun,
        } = published;
        let waiting = Instant::now();
        if flipped || !settle.is_empty() {
            // A program that read the old epoch must be done before its slots change, and its settings with the next flip.
            self.io.wait_for_programs().map_err(ApplyError::Read)?;
        }
        let waited = waiting.elapsed();
        self.run(&settle)?;
        self.dirty = false;
        Ok(Applied {
            operations,
            flipped,
            until_flip,
            waited,
            total: begun.elapsed(),
        })
    }

    /// What it adds, nothing asks for before the flip. If not all of it gets through, that is taken back: what is wanted next may be
    /// something else, for which a table that is full of it would have no room, ever.
    fn prepare(&mut self, ops: &[Op]) -> Result<(), ApplyError> {
        for (done, op) in ops.iter().enumerate() {
            if let Err(error) = self.write(op) {
                for op in ops.iter().take(done).rev() {
                    if op.value().is_some() && !self.image.holds(op.table, op.key()) {
                        // What cannot be removed either, the next apply finds when it reads the tables.
                        let _left = self.io.delete(op.table, op.key());
                    }
                }
                return Err(error);
            }
        }
        for op in ops {
            self.image.follow(op);
        }
        Ok(())
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), ApplyError> {
        for op in ops {
            self.write(op)?;
            self.image.follow(op);
        }
        Ok(())
    }

    fn write(&mut self, op: &Op) -> Result<(), ApplyError> {
        let result = match op.value() {
            Some(value) => self.io.put(op.table, op.key(), value),
            None => self.io.delete(op.table, op.key()),
        };
        result.map_err(|source| ApplyError::Write {
            map: op.table.name(),
            remove: op.value().is_none(),
            source,
        })
    }
}
