//! `/liveness`, `/readiness` and `/metrics` on one port, for those that have no settings of Felix's to follow.

use std::io;
use std::sync::Arc;
use std::thread;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

/// What is served. Called on a thread of its own.
pub trait Pages: Send + Sync {
    /// Whether it works; what it says to those who ask, either way.
    ///
    /// # Errors
    /// What is wrong, if it does not.
    fn ready(&self) -> Result<String, String>;

    /// In Prometheus' text format.
    ///
    /// # Errors
    /// What is wrong.
    fn metrics(&self) -> Result<String, String>;
}

/// Serves at `address`, `HOST:PORT`, as long as the process lives.
///
/// # Errors
/// If nobody can listen there.
pub fn serve(address: &str, pages: Arc<dyn Pages>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind(address));
    let listener = listener
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
    let router = Router::new()
        .route("/liveness", get(|| async { "alive\n" }))
        .route(
            "/readiness",
            get(|State(pages): State<Arc<dyn Pages>>| async move { answer(pages.ready(), "text/plain") }),
        )
        .route(
            "/metrics",
            get(|State(pages): State<Arc<dyn Pages>>| async move {
                answer(pages.metrics(), "text/plain; version=0.0.4; charset=utf-8")
            }),
        )
        .with_state(pages);
    let run = move || {
        if let Err(error) = runtime.block_on(async { axum::serve(listener, router).await }) {
            tracing::error!(%error, "cannot serve metrics any longer");
        }
    };
    thread::Builder::new().name("http".into()).spawn(run).map(drop)
}

fn answer(text: Result<String, String>, kind: &'static str) -> Response {
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
    }
}
