//! What a container runtime says to a plug-in and gets back: CNI's specification, versions 0.3.0 to 1.1.0.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::agent::cni::OnTimeout;

/// Versions whose results have interfaces and addresses as we read them.
pub(super) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Codes of errors: CNI's own, and the first of the plug-ins'.
pub(super) mod code {
    /// A version that is not supported.
    pub(crate) const VERSION: u32 = 1;
    /// A variable of the environment is missing or wrong.
    pub(crate) const ENVIRONMENT: u32 = 4;
    /// A file cannot be read or written.
    pub(crate) const IO: u32 = 5;
    /// The network configuration cannot be read.
    pub(crate) const DECODING: u32 = 6;
    /// It says something wrong.
    pub(crate) const CONFIGURATION: u32 = 7;
    /// Try again later.
    pub(crate) const LATER: u32 = 11;
    /// STATUS: not available.
    pub(crate) const UNAVAILABLE: u32 = 50;
    /// CHECK: the pod is not as it was made.
    pub(crate) const NOT_AS_MADE: u32 = 100;
}

/// Our part of a network configuration, as the runtime completes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Configuration {
    pub(super) cni_version: String,
    #[serde(default)]
    pub(super) name: String,
    pub(super) node: String,
    #[serde(default = "run_dir")]
    pub(super) run_dir: PathBuf,
    /// Seconds.
    #[serde(default = "timeout")]
    timeout: f64,
    #[serde(default)]
    pub(super) on_timeout: OnTimeout,
    #[serde(default)]
    pub(super) prev_result: Option<Value>,
    /// GC's: what is still there.
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub(super) valid: Vec<Valid>,
}

/// A container's interface that is still there.
#[derive(Debug, Deserialize)]
pub(super) struct Valid {
    #[serde(rename = "containerID")]
    pub(super) container: String,
    pub(super) ifname: String,
}

fn run_dir() -> PathBuf {
    "/run/calico-azure".into()
}

fn timeout() -> f64 {
    10.0
}

impl Configuration {
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Failure::new(code::DECODING, format!("network configuration: {error}")))?;
        let read: Self = serde_json::from_value(value)
            .map_err(|error| Failure::new(code::CONFIGURATION, format!("network configuration: {error}")))?;
        if !VERSIONS.contains(&read.cni_version.as_str()) {
            let message = format!(
                "cniVersion {} is not supported, expected one of {}",
                read.cni_version,
                VERSIONS.join(", ")
            );
            return Err(Failure::new(code::VERSION, message));
        }
        if !read.timeout.is_finite() || !(0.0..=600.0).contains(&read.timeout) {
            let message = format!("timeout is {}, expected 0 to 600 seconds", read.timeout);
            return Err(Failure::new(code::CONFIGURATION, message));
        }
        Ok(read)
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout)
    }
}

/// What the runtime says beside the configuration.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) container: String,
    pub(super) ifname: String,
    /// `CNI_ARGS`.
    pub(super) arguments: Vec<(String, String)>,
}

impl Call {
    pub(super) fn read(env: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let need = |name: &str| {
            let value = env.get(name).filter(|value| !value.is_empty());
            value
                .cloned()
                .ok_or_else(|| Failure::new(code::ENVIRONMENT, format!("{name} is not set")))
        };
        let container = need("CNI_CONTAINERID")?;
        // It names a file.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !container.chars().all(plain) || !container.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            let message = format!(
                "CNI_CONTAINERID {container:?} is none: expected letters, digits, and _ . - behind them"
            );
            return Err(Failure::new(code::ENVIRONMENT, message));
        }
        let arguments = env.get("CNI_ARGS").map(String::as_str).unwrap_or_default();
        let arguments = arguments.split(';').filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        });
        Ok(Self {
            container,
            ifname: need("CNI_IFNAME")?,
            arguments: arguments.collect(),
        })
    }

    /// `namespace/name` of the pod, if Kubernetes is who asks.
    pub(super) fn pod(&self) -> Option<String> {
        let argument = |name| {
            let mut found = self.arguments.iter().filter(|(key, _)| key == name);
            found
                .next()
                .map(|(_, value)| value.as_str())
                .filter(|value| !value.is_empty())
        };
        Some(format!(
            "{}/{}",
            argument("K8S_POD_NAMESPACE")?,
            argument("K8S_POD_NAME")?
        ))
    }
}

/// What went wrong, as the runtime is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: u32,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(super) fn json(&self, version: &str) -> Value {
        json!({"cniVersion": version, "code": self.code, "msg": format!("calico-azure-cni: {}", self.message)})
    }
}
