//! The nodes at one moment, for commands that look once.

use serde::Deserialize;
use serde_json::Value;
use tokio::runtime::Builder;

use super::client::{Api, Failure};
use super::{KubeConfig, KubeError};

/// The API server did not tell.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    #[error(transparent)]
    Config(#[from] KubeError),
    #[error("cannot list nodes: {0}")]
    List(String),
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    items: Vec<Value>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(rename = "continue", default)]
    more: Option<String>,
}

/// Every Node object.
///
/// # Errors
/// [`NodesError`].
pub fn nodes(config: &KubeConfig) -> Result<Vec<Value>, NodesError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(KubeError::Start)?;
    runtime.block_on(async {
        let api = Api::connect(config).await?;
        list(&api)
            .await
            .map_err(|error| NodesError::List(error.to_string()))
    })
}

pub(super) async fn list(api: &Api) -> Result<Vec<Value>, Failure> {
    const NODES: &str = "/api/v1/nodes?limit=500";
    let mut nodes = Vec::new();
    let mut path = NODES.to_owned();
    loop {
        let body = api.get(&path, "application/json").await?;
        let page: Page =
            serde_json::from_slice(&body).map_err(|error| Failure::Garbled(error.to_string()))?;
        nodes.extend(page.items);
        match page.metadata.more.filter(|more| !more.is_empty()) {
            // Tokens are made of what a URL may hold.
            Some(more) => path = format!("{NODES}&continue={more}"),
            None => return Ok(nodes),
        }
    }
}
