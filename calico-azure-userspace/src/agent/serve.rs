//! HTTP: `/liveness` and `/readiness` on one port, `/metrics` on another, where they are wanted. A thread of its own with an event
//! loop of its own, so that it answers whatever else the agent is busy with.

pub mod pages;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::sleep;

use super::AgentError;
use super::felix::Listener;
use super::health::{Health, liveness, readiness};
use super::metrics::Metrics;
use super::vitals::Vitals;

/// Until a port that is taken is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Where to listen. Changes take effect at once.
pub(super) struct Server {
    health: watch::Sender<Option<Listener>>,
    metrics: watch::Sender<Option<Listener>>,
}

impl Server {
    pub(super) fn start(vitals: Arc<Vitals>, metrics: Metrics) -> Result<Self, AgentError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AgentError::Start)?;
        let (health, health_wanted) = watch::channel(None);
        let (sender, metrics_wanted) = watch::channel(None);
        let of_health = Router::new()
            .route(
                "/liveness",
                get(|State(vitals): State<Arc<Vitals>>| async move { liveness(&vitals) }),
            )
            .route(
                "/readiness",
                get(|State(vitals): State<Arc<Vitals>>| async move { readiness(&vitals) }),
            )
            .with_state(vitals);
        let of_metrics = Router::new()
            .route(
                "/metrics",
                get(|State(metrics): State<Arc<Metrics>>| async move { text(&metrics) }),
            )
            .with_state(Arc::new(metrics));
        let run = move || {
            runtime.block_on(async {
                tokio::join!(
                    keep("health", of_health, health_wanted),
                    keep("metrics", of_metrics, metrics_wanted)
                );
            });
        };
        thread::Builder::new()
            .name("http".into())
            .spawn(run)
            .map_err(AgentError::Start)?;
        Ok(Self {
            health,
            metrics: sender,
        })
    }

    pub(super) fn listen(&self, health: &Listener, metrics: &Listener) {
        for (sender, listener) in [(&self.health, health), (&self.metrics, metrics)] {
            let wanted = listener.enabled.then(|| listener.clone());
            sender.send_if_modified(|now| {
                let differs = *now != wanted;
                *now = wanted;
                differs
            });
        }
    }
}

/// Serves where it is wanted, as long as it is.
async fn keep(what: &str, router: Router, mut wanted: watch::Receiver<Option<Listener>>) {
    let mut complained = false;
    loop {
        let listener = wanted.borrow_and_update().clone();
        let changed = tokio::select! {
            biased;
            changed = wanted.changed() => Some(changed),
            () = serve(what, &router, listener, &mut complained) => None,
        };
        match changed {
            // The agent has ended.
            Some(Err(_)) => return,
            Some(Ok(())) => complained = false,
            None => sleep(RETRY).await,
        }
    }
}

/// Comes back only if it cannot serve.
async fn serve(what: &str, router: &Router, listener: Option<Listener>, complained: &mut bool) {
    let Some(Listener { host, port, .. }) = listener else {
        return std::future::pending().await;
    };
    let error = match TcpListener::bind((host.as_str(), port)).await {
        Ok(socket) => {
            *complained = false;
            tracing::info!("{what} is served on {host} port {port}");
            match axum::serve(socket, router.clone()).await {
                Ok(()) => return,
                Err(error) => error,
            }
        }
        Err(error) => error,
    };
    if !std::mem::replace(complained, true) {
        tracing::error!(%error, "cannot serve {what} on {host} port {port}; name another with --{what}-port");
    }
}

impl IntoResponse for Health {
    fn into_response(self) -> Response {
        let code = if self.good {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (code, self.text).into_response()
    }
}

fn text(metrics: &Metrics) -> Response {
    match metrics.text() {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::agent::vitals::tests::by_hand;

    #[test]
    fn a_probe_of_an_agent_that_is_stuck_fails() {
        let (clock, vitals) = by_hand();
        vitals.begin();
        assert_eq!(liveness(&vitals).into_response().status(), StatusCode::OK);
        clock.store(91, Ordering::Relaxed);
        let code = liveness(&vitals).into_response().status();
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    }
}
