//! `cargo xtask manifests`: plain manifests for those who do not use Helm, from the chart, which is the only source of them.
//!
//! Helm is Go's template engine and some functions. The engine is the real one, from the Go compiler that the API server for the tests is
//! built with; the functions are in `render.go`, as many as the chart uses.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::bookworm::Bookworm;
use crate::process;
use crate::term::Ui;
use crate::workspace::Workspace;

const RENDER: &str = include_str!("render.go");
/// One manifest for each; `auto` is for those who try it out.
const NETWORKS: [&str; 4] = ["azure-cni", "udr", "flannel", "host-local"];
/// The one that also comes with pods' starts held by the chained plug-in.
const HELD: &str = "azure-cni";
/// In the order in which they are applied.
const TEMPLATES: [&str; 3] = ["namespace.yaml", "rbac.yaml", "daemonset.yaml"];
const NAMESPACE: &str = "calico-azure";
/// In `cleanup.yaml`, to be replaced by a node's name.
const NODE: &str = "NODE";

/// Writes the manifests, or says which differ from what the chart makes of them.
pub(crate) fn run(ui: &Ui, ws: &Workspace, check: bool) -> anyhow::Result<ExitCode> {
    let stale = stale(ui, ws)?;
    for (path, text) in &stale {
        if check {
            ui.error(&format!(
                "{} is not what deploy/chart renders to: run `cargo xtask manifests`",
                path.display()
            ));
        } else {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
            ui.note(&format!("wrote {}", path.display()));
        }
    }
    Ok(if check && !stale.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Files that are not as they should be, and how they should be.
pub(crate) fn stale(ui: &Ui, ws: &Workspace) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let dir = ws.root.join("deploy/manifests");
    let mut stale = Vec::new();
    for (name, text) in rendered(ui, ws)? {
        let path = dir.join(name);
        if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            stale.push((path, text));
        }
    }
    Ok(stale)
}

/// Every manifest, by its file's name.
fn rendered(ui: &Ui, ws: &Workspace) -> anyhow::Result<BTreeMap<String, String>> {
    let chart = Chart::read(&ws.root.join("deploy/chart"))?;
    let program = renderer(ui, ws)?;
    let mut manifests = BTreeMap::new();
    let networks = NETWORKS.map(|network| (network.to_owned(), network, false));
    let held = (format!("{HELD}-held"), HELD, true);
    for (name, network, holds) in networks.into_iter().chain([held]) {
        let changes =
            json!({"networking": network, "namespace": {"create": true}, "cniPlugin": {"enabled": holds}});
        let mut parts = chart.render(&program, changes, &TEMPLATES)?;
        let documents: Vec<String> = TEMPLATES.iter().filter_map(|name| parts.remove(*name)).collect();
        let holds = if holds {
            " --set cniPlugin.enabled=true"
        } else {
            ""
        };
        let how = format!("`--set networking={network} --set namespace.create=true{holds}`");
        manifests.insert(format!("{name}.yaml"), manifest(&how, &documents));
    }
    let changes = json!({"doctor": {"enabled": true}});
    let documents = chart.render(&program, changes, &["doctor.yaml"])?;
    let documents: Vec<String> = documents.into_values().collect();
    manifests.insert(
        "doctor.yaml".to_owned(),
        manifest("`--set doctor.enabled=true`", &documents),
    );
    refuses(&chart, &program)?;
    let changes = json!({"cleanup": {"node": NODE}});
    let documents: Vec<String> = chart
        .render(&program, changes, &["cleanup.yaml"])?
        .into_values()
        .collect();
    let how = format!("`--set cleanup.node={NODE}`");
    manifests.insert("cleanup.yaml".to_owned(), manifest(&how, &documents));
    Ok(manifests)
}

/// Values that the schema must not let through.
fn refuses(chart: &Chart, program: &Path) -> anyhow::Result<()> {
    for (changes, said) in [
        (json!({"networking": "calico"}), "values.networking"),
        (json!({"netwroking": "udr"}), "netwroking is not known"),
        (json!({"metrics": {"port": 0}}), "values.metrics.port"),
        (
            json!({"cniPlugin": {"enabled": "yes"}}),
            "values.cniPlugin.enabled",
        ),
        (json!({"env": {"A": 1}}), "values.env.A"),
        (json!({"interfacePrefix": "a b"}), "values.interfacePrefix"),
    ] {
        let text = changes.to_string();
        match chart.render(program, changes, &["daemonset.yaml"]) {
            Err(error) if error.to_string().contains(said) => {}
            Err(error) => bail!("values {text} are refused for another reason: {error}"),
            Ok(_) => bail!("values.schema.json lets {text} through"),
        }
    }
    Ok(())
}

fn manifest(how: &str, documents: &[String]) -> String {
    let documents: Vec<&str> = documents.iter().map(|text| text.trim()).collect();
    format!(
        "# Made by `cargo xtask manifests` from deploy/chart with {how}; edits belong there.\n{}\n",
        documents.join("\n---\n")
    )
}

/// A chart's files, as far as rendering needs them.
struct Chart {
    about: Value,
    values: Value,
    schema: Value,
    templates: BTreeMap<String, String>,
}

impl Chart {
    fn read(dir: &Path) -> anyhow::Result<Self> {
        let mut templates = BTreeMap::new();
        let folder = dir.join("templates");
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            templates.insert(name, read(&path)?);
        }
        let chart = Self {
            about: yaml(&dir.join("Chart.yaml"))?,
            values: yaml(&dir.join("values.yaml"))?,
            schema: serde_json::from_str(&read(&dir.join("values.schema.json"))?)
                .context("values.schema.json")?,
            templates,
        };
        let version = env!("CARGO_PKG_VERSION");
        for field in ["version", "appVersion"] {
            ensure!(
                chart.about[field] == version,
                "{}: {field} is {}, and the workspace is {version}",
                dir.join("Chart.yaml").display(),
                chart.about[field]
            );
        }
        Ok(chart)
    }

    /// Templates rendered with these values over the chart's own.
    fn render(
        &self,
        program: &Path,
        changes: Value,
        wanted: &[&str],
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let mut values = self.values.clone();
        merge(&mut values, changes);
        // As Helm has them: fields of Chart.yaml begin with a capital.
        let about: serde_json::Map<String, Value> = (self.about.as_object().into_iter().flatten())
            .map(|(name, value)| (capitalised(name), value.clone()))
            .collect();
        let input = json!({
            "context": {
                "Values": values,
                "Chart": about,
                // What kubectl applies is no release of Helm's.
                "Release": {"Name": "calico-azure", "Namespace": NAMESPACE, "Service": "kubectl"},
            },
            "schema": self.schema,
            "templates": self.templates,
            "wanted": wanted,
        });
        let mut child = process::foreign(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.to_string().as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "deploy/chart does not render: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// The program that renders, built anew when its source has changed.
fn renderer(ui: &Ui, ws: &Workspace) -> anyhow::Result<PathBuf> {
    let dir = ws.tools().join("render");
    let (source, program) = (dir.join("render.go"), dir.join("render"));
    if program.is_file() && fs::read_to_string(&source).is_ok_and(|text| text == RENDER) {
        return Ok(program);
    }
    let go = Bookworm::new(ui, ws).go(ws)?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let new = dir.join("new.go");
    fs::write(&new, RENDER).with_context(|| format!("cannot write {}", new.display()))?;
    let mut build = go.command(&dir.join("gopath"));
    build.args(["build", "-o"]).arg(&program).arg(&new);
    process::logged(
        ui,
        "building the renderer of the chart",
        &mut build,
        &ws.setup_log(),
    )?;
    fs::rename(&new, &source).with_context(|| format!("cannot write {}", source.display()))?;
    Ok(program)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn yaml(path: &Path) -> anyhow::Result<Value> {
    serde_saphyr::from_str(&read(path)?).with_context(|| path.display().to_string())
}

/// As Helm lays values over each other: maps are merged, anything else is replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn values_are_laid_over_each_other() {
        let mut values = json!({"a": {"b": 1, "c": [1, 2]}, "d": 3});
        merge(&mut values, json!({"a": {"c": [3]}, "e": null}));
        assert_eq!(values, json!({"a": {"b": 1, "c": [3]}, "d": 3, "e": null}));
    }

    #[test]
    fn fields_of_the_chart_are_capitalised() {
        assert_eq!(capitalised("appVersion"), "AppVersion");
    }

    /// Names of all values that the schema or the values have.
    fn names(
        value: &Value,
        fields: &dyn Fn(&Value) -> Option<&serde_json::Map<String, Value>>,
    ) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (name, inner) in fields(value).into_iter().flatten() {
            found.insert(name.clone());
            found.extend(
                names(inner, fields)
                    .into_iter()
                    .map(|below| format!("{name}.{below}")),
            );
        }
        found
    }

    #[test]
    fn the_schema_knows_every_value_and_no_other() {
        let dir = Workspace::find().unwrap().root.join("deploy/chart");
        let schema: Value = serde_json::from_str(&read(&dir.join("values.schema.json")).unwrap()).unwrap();
        let values = yaml(&dir.join("values.yaml")).unwrap();
        let known = names(&schema, &|part| part["properties"].as_object());
        // Maps with names of the user's have no properties in the schema.
        let free: BTreeSet<&str> = ["resources.", "nodeSelector.", "updateStrategy."].into();
        let given: BTreeSet<String> = names(&values, &Value::as_object)
            .into_iter()
            .filter(|name| {
                let own = name.strip_prefix("doctor.").unwrap_or(name);
                !free.iter().any(|prefix| own.starts_with(prefix))
            })
            .collect();
        let known: BTreeSet<String> = known
            .into_iter()
            .filter(|name| !name.contains("imagePullSecrets."))
            .collect();
        assert_eq!(known, given);
    }
}
