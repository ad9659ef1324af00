//! The few commands of kubectl's that preflight prints, done to the lab as a cluster would do them.

use serde_json::{Value, json};

use super::{Cluster, LabError, Result, flannel};

const NODES: &str = "nodes.yaml";

impl Cluster {
    /// Node objects, as agents see them.
    pub fn objects(&self) -> Result<Vec<Value>> {
        serde_saphyr::from_multiple(&self.source.read(NODES)?).map_err(|error| LabError::Format {
            path: self.source.dir().join(NODES),
            problem: error.to_string(),
        })
    }

    /// Writes them, and lets flannel's daemons, if they are there, see them.
    pub fn write_objects(&self, objects: &[Value]) -> Result<()> {
        self.source.write_objects(NODES, objects)?;
        if self.nodes.iter().any(|node| node.subnet_env().exists()) {
            flannel::follow(&self.nodes, objects)?;
        }
        Ok(())
    }

    /// `kubectl annotate node NODE --overwrite 'KEY=VALUE'`, `kubectl delete pod -n NAMESPACE NAME` (something makes it anew), and the end of
    /// flannel's pod of a node, whose successor writes what it finds.
    pub fn kubectl(&mut self, command: &str) -> Result<()> {
        let words: Vec<&str> = command.split(' ').collect();
        match words.as_slice() {
            [
                "kubectl",
                "annotate",
                "node",
                node,
                "--overwrite",
                annotation @ ..,
            ] => {
                let annotation = annotation.join(" ");
                let annotation = annotation.trim_matches('\'');
                let (key, value) = annotation.split_once('=').unwrap_or((annotation, ""));
                let mut objects = self.objects()?;
                for object in objects
                    .iter_mut()
                    .filter(|object| object["metadata"]["name"] == *node)
                {
                    object["metadata"]["annotations"][key] = json!(value);
                }
                self.write_objects(&objects)
            }
            ["kubectl", "delete", "pod", "-n", namespace, name] => {
                let key = format!("{namespace}/{name}");
                let manifest = self.pod(&key)?.manifest.clone();
                self.delete_pod(&key)?;
                self.add_pod(manifest).map(drop)
            }
            [
                "kubectl",
                "-n",
                "kube-flannel",
                "delete",
                "pod",
                "-l",
                "app=flannel",
                "--field-selector",
                node,
            ] => {
                let node = self.node(node.trim_start_matches("spec.nodeName="))?;
                flannel::write_env(node)?;
                let mut objects = self.objects()?;
                for object in objects
                    .iter_mut()
                    .filter(|object| object["metadata"]["name"] == node.name())
                {
                    object["metadata"]["annotations"] = flannel::annotations(node);
                }
                self.write_objects(&objects)
            }
            _ => Err(LabError::Unknown {
                kind: "command",
                name: command.to_owned(),
                known: "kubectl annotate node, kubectl delete pod".to_owned(),
            }),
        }
    }
}
