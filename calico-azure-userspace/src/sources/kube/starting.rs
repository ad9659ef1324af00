//! Whether the API server has just started: it answers before it knows all that it serves, and what it leaves out then is not gone.

use std::time::{Duration, Instant};

use super::client::{Api, Failure};
use super::follow::WHOLE;
use super::hub::problem;
use crate::model::Problem;

const PATH: &str = "/readyz";
/// A server that says for so long that it is not ready has other troubles.
const UNREADY: Duration = Duration::from_secs(60);
/// One that has just started lets nobody do anything; one that does not let us ask for longer never will.
const FORBIDDEN: Duration = Duration::from_secs(5);

/// Since when it has not been ready.
#[derive(Default)]
pub(super) struct Start {
    since: Option<Instant>,
}

impl Start {
    /// What to say as long as the server should not be believed.
    pub(super) async fn ask(&mut self, api: &Api) -> Result<Option<Problem>, Failure> {
        let failure = match api.get(PATH, WHOLE.list).await {
            Ok(_) => {
                self.since = None;
                return Ok(None);
            }
            Err(failure) => failure,
        };
        let patience = match failure.code() {
            None | Some(401 | 429) => return Err(failure),
            Some(403) => FORBIDDEN,
            Some(500..) => UNREADY,
            // Not every proxy lets it through.
            Some(_) => Duration::ZERO,
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        Ok((since.elapsed() < patience).then(|| not_ready(&failure)))
    }
}

fn not_ready(failure: &Failure) -> Problem {
    let message = format!("the API server is not ready: {failure}; what it does not serve is waited for");
    let help = "see `kubectl get --raw /readyz?verbose`, if this stays";
    problem("readiness", message, help.to_owned())
}
