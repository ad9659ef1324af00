//! A thread that clears away conntrack entries of flows that have ended.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::AgentError;
use super::vitals::Vitals;
use crate::dataplane::expire::expire;
use crate::dataplane::maps::Maps;

/// As often as Felix does.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long a dead entry stays: far longer than a pass takes.
const MARGIN: Duration = Duration::from_secs(2);

pub(super) fn start(maps: Maps, vitals: Arc<Vitals>) -> Result<(), AgentError> {
    let sweep = move || {
        let mut failing = false;
        loop {
            thread::sleep(INTERVAL);
            let begun = Instant::now();
            let pass = maps.config().and_then(|config| match config {
                // Before the first apply there are no flows.
                Some(config) if config.epoch != 0 => expire(&maps, &config, MARGIN).map(Some),
                _ => Ok(None),
            });
            match pass {
                Ok(pass) => {
                    failing = false;
                    if let Some(pass) = pass {
                        vitals.swept(pass, begun.elapsed());
                    }
                    tracing::trace!(?pass, "swept conntrack");
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!(%error, "cannot sweep conntrack; full tables still evict what is oldest");
                }
                Err(_) => {}
            }
        }
    };
    thread::Builder::new()
        .name("sweep".into())
        .spawn(sweep)
        .map_err(AgentError::Start)?;
    Ok(())
}
