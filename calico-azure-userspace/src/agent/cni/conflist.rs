//! Network configurations of a node: which one the runtime uses, and how it reads with our plug-in in it. Pure.

use serde_json::{Map, Value, json};

use super::{OnTimeout, PLUGIN};

/// What our plug-in is told.
#[derive(Clone, Debug)]
pub struct Ours {
    pub node: String,
    /// The agent's, as the node names it.
    pub run_dir: String,
    /// Seconds.
    pub timeout: u32,
    pub on_timeout: OnTimeout,
}

/// Which of a directory's files the runtime uses: the first, by name, of those that it knows as configurations.
pub(super) fn first(mut names: Vec<String>) -> Option<String> {
    names.retain(|name| kind(name).is_some());
    names.sort_unstable();
    names.into_iter().next()
}

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// Plug-ins in a list.
    List,
    /// One plug-in, the old way.
    Single,
}

pub(super) fn kind(name: &str) -> Option<FileKind> {
    match name.rsplit_once('.')?.1 {
        "conflist" => Some(FileKind::List),
        "conf" | "json" => Some(FileKind::Single),
        _ => None,
    }
}

/// The list with our plug-in at its end; `None` if it is there already, told the same.
pub(super) fn with(text: &str, kind: FileKind, ours: &Ours) -> Result<Option<String>, String> {
    let mut list = object(text)?;
    if kind == FileKind::Single {
        list = listed(list)?;
    }
    let plugins = plugins(&mut list)?;
    let own = json!({"type": PLUGIN, "node": ours.node, "runDir": ours.run_dir, "timeout": ours.timeout,
        "onTimeout": ours.on_timeout.name()});
    if kind == FileKind::List && plugins.last() == Some(&own) {
        return Ok(None);
    }
    plugins.retain(|plugin| !is_ours(plugin));
    plugins.push(own);
    Ok(Some(pretty(&list)))
}

/// The list without it; `None` if it is not there.
pub(super) fn without(text: &str) -> Result<Option<String>, String> {
    let mut list = object(text)?;
    let plugins = plugins(&mut list)?;
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    let there = plugins.len() != before;
    Ok(there.then(|| pretty(&list)))
}

/// Whether a list has it, wherever.
pub(super) fn has(text: &str) -> bool {
    let list = object(text).unwrap_or_default();
    let plugins = list.get("plugins").and_then(Value::as_array);
    plugins.is_some_and(|plugins| plugins.iter().any(is_ours))
}

fn is_ours(plugin: &Value) -> bool {
    plugin["type"] == PLUGIN
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("is no object".to_owned()),
        Err(error) => Err(format!("is no JSON: {error}")),
    }
}

fn plugins(list: &mut Map<String, Value>) -> Result<&mut Vec<Value>, String> {
    match list.get_mut("plugins").and_then(Value::as_array_mut) {
        Some(plugins) if !plugins.is_empty() => Ok(plugins),
        _ => Err("has no list of plug-ins (`plugins`)".to_owned()),
    }
}

/// A list of one plug-in, which has the network's name and version with it.
fn listed(mut single: Map<String, Value>) -> Result<Map<String, Value>, String> {
    if !single.get("type").is_some_and(Value::is_string) {
        return Err("names no plug-in (`type`)".to_owned());
    }
    let version = single.remove("cniVersion").unwrap_or_else(|| json!("0.3.1"));
    let name = single.remove("name").ok_or("names no network (`name`)")?;
    let Value::Object(list) = json!({"cniVersion": version, "name": name, "plugins": [single]}) else {
        return Err("is no object".to_owned());
    };
    Ok(list)
}

fn pretty(list: &Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(list.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(timeout: u32) -> Ours {
        Ours {
            node: "n1".into(),
            run_dir: "/run/calico-azure".into(),
            timeout,
            on_timeout: OnTimeout::Fail,
        }
    }

    fn types(text: &str) -> Vec<String> {
        let value: Value = serde_json::from_str(text).unwrap();
        let plugins = value["plugins"].as_array().unwrap().iter();
        plugins
            .map(|plugin| plugin["type"].as_str().unwrap().to_owned())
            .collect()
    }

    const LIST: &str = r#"{"cniVersion": "0.3.1", "name": "azure", "adds": {"unknown": [1]},
        "plugins": [{"type": "azure-vnet", "mode": "transparent"}, {"type": "portmap"}]}"#;

    #[test]
    fn it_is_added_once_at_the_end_and_nothing_else_changes() {
        let added = with(LIST, FileKind::List, &ours(10)).unwrap().unwrap();
        assert_eq!(types(&added), ["azure-vnet", "portmap", PLUGIN]);
        assert_eq!(with(&added, FileKind::List, &ours(10)).unwrap(), None);
        let longer = with(&added, FileKind::List, &ours(20)).unwrap().unwrap();
        assert_eq!(types(&longer), ["azure-vnet", "portmap", PLUGIN]);
        let removed = without(&longer).unwrap().unwrap();
        let (before, after): (Value, Value) = (
            serde_json::from_str(LIST).unwrap(),
            serde_json::from_str(&removed).unwrap(),
        );
        assert_eq!(before, after);
        assert_eq!(without(&removed).unwrap(), None);
        // Somebody has put another behind it.
        let mut moved: Value = serde_json::from_str(&added).unwrap();
        moved["plugins"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "tuning"}));
        let mended = with(&moved.to_string(), FileKind::List, &ours(10))
            .unwrap()
            .unwrap();
        assert_eq!(types(&mended), ["azure-vnet", "portmap", "tuning", PLUGIN]);
    }

    #[test]
    fn a_single_plug_in_becomes_a_list() {
        let single =
            r#"{"cniVersion": "0.4.0", "name": "net", "type": "ptp", "ipam": {"type": "host-local"}}"#;
        let list = with(single, FileKind::Single, &ours(10)).unwrap().unwrap();
        assert_eq!(types(&list), ["ptp", PLUGIN]);
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(
            (&list["cniVersion"], &list["name"]),
            (&json!("0.4.0"), &json!("net"))
        );
        assert_eq!(
            list["plugins"][0],
            json!({"type": "ptp", "ipam": {"type": "host-local"}})
        );
    }

    #[test]
    fn what_is_no_configuration_is_said() {
        for (text, kind, said) in [
            ("", FileKind::List, "is no JSON"),
            ("[]", FileKind::List, "is no object"),
            (r#"{"plugins": []}"#, FileKind::List, "has no list of plug-ins"),
            (
                r#"{"plugins": {"a": 1}}"#,
                FileKind::List,
                "has no list of plug-ins",
            ),
            (r#"{"name": "x"}"#, FileKind::Single, "names no plug-in"),
            (r#"{"type": "x"}"#, FileKind::Single, "names no network"),
        ] {
            let error = with(text, kind, &ours(10)).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn the_runtime_takes_the_first_that_it_knows() {
        let names = |names: &[&str]| first(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(
            names(&["99-x.conflist", "10-azure.conflist", "00-notes.txt"]).as_deref(),
            Some("10-azure.conflist")
        );
        assert_eq!(
            names(&["10-a.conf", "10-a.conflist"]).as_deref(),
            Some("10-a.conf")
        );
        assert_eq!(names(&["README", "10-a.conflist.saved"]), None);
    }
}
