//! Who talks: pods, workloads that have no pod, hosts, and what lies outside.

use std::fmt;

use ipnet::IpNet;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::model::Kind;

/// One end of a connection. In the order in which ends are listed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    Pod {
        namespace: String,
        name: String,
    },
    /// Stands for each of its pods.
    Workload {
        namespace: String,
        name: String,
        kind: Kind,
    },
    /// A node that has host endpoints.
    Host {
        node: String,
    },
    /// The addresses in it that belong to nobody else listed.
    Cidr(IpNet),
}

impl Place {
    /// Of pods and workloads.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pod { namespace, .. } | Self::Workload { namespace, .. } => Some(namespace),
            Self::Host { .. } | Self::Cidr(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Workload {
                namespace,
                name,
                kind,
            } => write!(f, "{namespace}/{name} ({})", kind.as_str()),
            Self::Host { node } => write!(f, "{node} (host)"),
            Self::Cidr(net) => net.fmt(f),
        }
    }
}

/// `{"pod":"ns/name"}`, `{"workload":"ns/name","kind":"Deployment"}`, `{"host":"node"}`, `{"cidr":"10.0.0.0/8"}`.
impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Pod { namespace, name } => {
                map.serialize_entry("pod", &format_args!("{namespace}/{name}"))?;
            }
            Self::Workload {
                namespace,
                name,
                kind,
            } => {
                map.serialize_entry("workload", &format_args!("{namespace}/{name}"))?;
                map.serialize_entry("kind", kind.as_str())?;
            }
            Self::Host { node } => map.serialize_entry("host", node)?,
            Self::Cidr(net) => map.serialize_entry("cidr", net)?,
        }
        map.end()
    }
}
