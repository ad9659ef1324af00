//! Where rules are written: for those who have a file to look into.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::load::Origin;
use super::problem::Excerpt;
use super::yaml::{self, Node, Part, Value};

/// A line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
    /// Without what is before and after it, printable characters only.
    pub text: String,
}

/// A rule of an object, by its position as written. `None` if the file is no longer what it was.
#[must_use]
pub fn rule(origin: &Origin, ingress: bool, index: u32) -> Option<Written> {
    let direction = if ingress { "ingress" } else { "egress" };
    find(origin, |object| {
        let Value::List(rules) = &object.get("spec")?.get(direction)?.value else {
            return None;
        };
        rules.get(usize::try_from(index).ok()?)
    })
}

/// What a tier says of what it does not decide; the tier itself if it does not say.
#[must_use]
pub fn default_action(origin: &Origin) -> Option<Written> {
    let action = find(origin, |object| object.get("spec")?.get("defaultAction"));
    action.or_else(|| find(origin, itself))
}

fn itself<'n, 't>(node: &'n Node<'t>) -> Option<&'n Node<'t>> {
    Some(node)
}

fn find<'o>(
    origin: &'o Origin,
    place: impl for<'n, 't> Fn(&'n Node<'t>) -> Option<&'n Node<'t>>,
) -> Option<Written> {
    let text = fs::read_to_string(&origin.file).ok()?;
    let mut found = None;
    // Whatever is before a place that is not YAML was read as well.
    let _rest = yaml::documents(Part::whole(&text), &mut |document| {
        if found.is_none() {
            let object = object_at(&document, origin.line);
            found = object.and_then(&place).map(|node| node.place);
        }
    });
    let place = found?;
    Some(Written {
        file: Path::to_owned(&origin.file),
        line: place.line,
        text: Excerpt::new(&text, place.byte, 0).map_or_else(String::new, |line| line.text.trim().to_owned()),
    })
}

/// The object that begins on the line, also inside lists.
fn object_at<'n, 't>(node: &'n Node<'t>, line: u32) -> Option<&'n Node<'t>> {
    if let Some(Value::List(items)) = node.get("items").map(|items| &items.value)
        && let Some(found) = items.iter().find_map(|item| object_at(item, line))
    {
        return Some(found);
    }
    (node.place.line == line && matches!(node.value, Value::Map(_))).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_defaults_are_found_where_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        let text = "kind: Tier\nspec:\n  defaultAction: Pass\n---\nkind: List\nitems:\n- kind: A\n- kind: B\n  spec:\n    egress:\n    - one: 1\n    - {two: 2}  \n";
        fs::write(&file, text).unwrap();
        let origin = |line| Origin {
            file: file.as_path().into(),
            line,
        };
        let found = |written: Option<Written>| written.map(|written| (written.line, written.text));
        assert_eq!(
            found(rule(&origin(8), false, 1)),
            Some((12, "- {two: 2}".to_owned()))
        );
        assert_eq!(
            found(rule(&origin(8), false, 0)),
            Some((11, "- one: 1".to_owned()))
        );
        assert_eq!(found(rule(&origin(8), true, 0)), None);
        assert_eq!(found(rule(&origin(8), false, 2)), None);
        assert_eq!(found(rule(&origin(7), false, 0)), None);
        assert_eq!(
            found(default_action(&origin(1))),
            Some((3, "defaultAction: Pass".to_owned()))
        );
        assert_eq!(
            found(default_action(&origin(7))),
            Some((7, "- kind: A".to_owned()))
        );
        let gone = Origin {
            file: Path::new("/nowhere").into(),
            line: 1,
        };
        assert_eq!(default_action(&gone), None);
    }
}
