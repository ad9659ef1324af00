//! The directory that the agents watch: what the API server would tell them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{LabDir, LabError, Result};

/// The watched directory. Files appear and change atomically.
#[derive(Clone, Debug)]
pub struct Source {
    dir: PathBuf,
    staging: PathBuf,
}

/// A port that a container declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    Tcp(u16),
    Udp(u16),
}

/// A Pod as a user wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct PodManifest {
    pub namespace: String,
    pub name: String,
    pub node: String,
    pub ports: Vec<Port>,
    document: Value,
}

impl Source {
    /// The lab's directory of manifests.
    #[must_use]
    pub fn new(dir: &LabDir) -> Self {
        Self {
            dir: dir.manifests(),
            staging: dir.staging(),
        }
    }

    /// The watched directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The content of one file.
    pub fn read(&self, file: &str) -> Result<String> {
        let path = self.dir.join(file);
        fs::read_to_string(&path).map_err(LabError::file(path))
    }

    /// Writes or replaces one file in one step.
    pub fn write(&self, file: &str, content: &str) -> Result<()> {
        let staged = self.staging.join(file);
        fs::write(&staged, content).map_err(LabError::file(&staged))?;
        let path = self.dir.join(file);
        fs::rename(&staged, &path).map_err(LabError::file(path))
    }

    /// Writes or replaces one file of several objects.
    pub fn write_objects(&self, file: &str, objects: &[Value]) -> Result<()> {
        let mut text = String::new();
        for object in objects {
            let yaml = serde_saphyr::to_string(object).map_err(|e| LabError::Format {
                path: self.dir.join(file),
                problem: e.to_string(),
            })?;
            text.push_str("---\n");
            text.push_str(yaml.trim_end());
            text.push('\n');
        }
        self.write(file, &text)
    }

    /// Removes one file.
    pub fn remove(&self, file: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::remove_file(&path).map_err(LabError::file(path))
    }

    /// Copies a directory of manifests, except its pods: those are returned, because a pod exists only when a node
    /// runs it. Files keep their names.
    pub fn import(&self, from: &Path) -> Result<Vec<PodManifest>> {
        let entries = fs::read_dir(from).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut paths: Vec<_> = entries
            .map_err(LabError::file(from))?
            .into_iter()
            .map(|entry| entry.path())
            .collect();
        paths.retain(|path| {
            matches!(
                path.extension().and_then(|e| e.to_str()),
                Some("yaml" | "yml" | "json")
            )
        });
        paths.sort();
        let mut pods = Vec::new();
        for path in paths {
            let text = fs::read_to_string(&path).map_err(LabError::file(&path))?;
            let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|e| LabError::Format {
                path: path.clone(),
                problem: e.to_string(),
            })?;
            let (mine, rest): (Vec<_>, Vec<_>) = documents
                .into_iter()
                .enumerate()
                .partition(|(_, document)| document["kind"] == "Pod");
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if mine.is_empty() {
                // As written, so that a problem in it is reported where the user would look.
                self.write(&name, &text)?;
                continue;
            }
            for (index, document) in mine {
                let pod = PodManifest::parse(document).map_err(|problem| LabError::Manifest {
                    path: path.clone(),
                    document: index + 1,
                    problem,
                })?;
                pods.push(pod);
            }
            if !rest.is_empty() {
                let rest: Vec<_> = rest.into_iter().map(|(_, document)| document).collect();
                self.write_objects(&name, &rest)?;
            }
        }
        Ok(pods)
    }
}

impl PodManifest {
    /// A pod of no consequence, for tests.
    #[must_use]
    pub fn new(namespace: &str, name: &str, node: &str, labels: &[(&str, &str)], ports: &[Port]) -> Self {
        let labels: serde_json::Map<_, _> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        let declared: Vec<_> = ports
            .iter()
            .map(|port| match port {
                Port::Tcp(port) => json!({"containerPort": port, "protocol": "TCP"}),
                Port::Udp(port) => json!({"containerPort": port, "protocol": "UDP"}),
            })
            .collect();
        let document = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none", "ports": declared}]},
        });
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            ports: ports.to_vec(),
            document,
        }
    }

    /// Reads a Pod object.
    pub fn parse(document: Value) -> Result<Self, String> {
        let text = |pointer: &str| {
            document
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned)
        };
        let name = text("/metadata/name").ok_or("metadata.name: expected the pod's name")?;
        let namespace = text("/metadata/namespace").unwrap_or_else(|| "default".to_owned());
        let node = text("/spec/nodeName").ok_or_else(|| {
            format!("Pod {namespace}/{name}: spec.nodeName: expected a node of the lab, such as node-1; the lab has no scheduler")
        })?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut ports = Vec::new();
        for container in list(&document["spec"]["containers"]) {
            for port in list(&container["ports"]) {
                let number = port["containerPort"].as_u64().and_then(|n| u16::try_from(n).ok());
                let Some(number) = number.filter(|n| *n != 0) else {
                    return Err(format!(
                        "Pod {namespace}/{name}: spec.containers.ports.containerPort: expected 1 to 65535, found {}",
                        port["containerPort"]
                    ));
                };
                match port["protocol"].as_str().unwrap_or("TCP") {
                    "TCP" => ports.push(Port::Tcp(number)),
                    "UDP" => ports.push(Port::Udp(number)),
                    // Nothing here serves SCTP; policy on it can be probed all the same.
                    _ => {}
                }
            }
        }
        Ok(Self {
            namespace,
            name,
            node,
            ports,
            document,
        })
    }

    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The pod's file in the watched directory.
    #[must_use]
    pub fn file(&self) -> String {
        format!("pod.{}.{}.yaml", self.namespace, self.name)
    }

    /// Changes a label, as `kubectl label` would; write the pod again to publish it.
    pub fn set_label(&mut self, key: &str, value: Option<&str>) {
        let labels = &mut self.document["metadata"]["labels"];
        if !labels.is_object() {
            *labels = json!({});
        }
        if let Some(labels) = labels.as_object_mut() {
            match value {
                Some(value) => labels.insert(key.to_owned(), json!(value)),
                None => labels.remove(key),
            };
        }
    }

    /// As the API server has it before the pod's network exists: bound to its node.
    #[must_use]
    pub fn bound(&self) -> Value {
        let mut pod = self.document.clone();
        pod["status"] = json!({"phase": "Pending"});
        pod
    }

    /// As the API server has it once kubelet has reported the pod's addresses.
    #[must_use]
    pub fn running(&self, ips: &[IpAddr]) -> Value {
        let mut pod = self.document.clone();
        let first = ips.first().map(ToString::to_string);
        let all: Vec<_> = ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        pod["status"] = json!({"phase": "Running", "podIP": first, "podIPs": all});
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_taken_out_and_the_rest_is_kept_as_written() {
        let from = tempfile::tempdir().unwrap();
        let lab = LabDir::create().unwrap();
        let source = Source::new(&lab);
        let policy = "# a comment\nkind: NetworkPolicy\nmetadata: {name: x}\n";
        fs::write(from.path().join("policy.yaml"), policy).unwrap();
        fs::write(
            from.path().join("mixed.yaml"),
            "kind: Namespace\nmetadata: {name: a}\n---\nkind: Pod\nmetadata: {name: p, namespace: a}\n\
             spec: {nodeName: node-1, containers: [{ports: [{containerPort: 53, protocol: UDP}, {containerPort: 80}]}]}\n",
        )
        .unwrap();
        let pods = source.import(from.path()).unwrap();
        assert_eq!(source.read("policy.yaml").unwrap(), policy);
        let rest: Vec<Value> = serde_saphyr::from_multiple(&source.read("mixed.yaml").unwrap()).unwrap();
        assert_eq!(rest, [json!({"kind": "Namespace", "metadata": {"name": "a"}})]);
        assert_eq!(pods.len(), 1);
        assert_eq!((pods[0].key().as_str(), pods[0].node.as_str()), ("a/p", "node-1"));
        assert_eq!(pods[0].ports, [Port::Udp(53), Port::Tcp(80)]);
        let running = pods[0].running(&["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(running["status"]["podIP"], "10.0.0.1");
        assert_eq!(running["status"]["podIPs"][1]["ip"], "fd00::1");
    }

    #[test]
    fn a_pod_without_a_node_is_reported_with_file_and_document() {
        let from = tempfile::tempdir().unwrap();
        let lab = LabDir::create().unwrap();
        fs::write(
            from.path().join("p.yaml"),
            "kind: Namespace\n---\nkind: Pod\nmetadata: {name: p}\n",
        )
        .unwrap();
        let error = Source::new(&lab).import(from.path()).unwrap_err().to_string();
        assert!(
            error.contains("p.yaml: document 2: Pod default/p: spec.nodeName"),
            "{error}"
        );
    }
}
