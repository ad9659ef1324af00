//! YAML (and so JSON) as a tree that knows where everything was written.
//!
//! Typed deserialisation stops at the first error and forgets places; here one pass over a manifest can report
//! everything that is wrong with it, each thing at its place. Aliases and merge keys are resolved; how much they may
//! add is bounded.

mod json;
mod parts;
mod scalar;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StructureStyle, Tag};

pub(super) use json::Keep;
pub(super) use parts::{Part, line_breaks, parts, values};
pub(super) use scalar::{Resolved, Scalar};

/// Deepest nesting; no Kubernetes object comes near.
const MAX_DEPTH: usize = 100;
/// Nodes that aliases may add to one document, against documents that multiply themselves.
const MAX_ALIASED: usize = 100_000;

/// Where something begins, and how far it reaches on its first line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// From the start of the text.
    pub(super) byte: usize,
    /// From 1.
    pub(super) line: u32,
    /// In characters, from 1.
    pub(super) column: u32,
    /// In characters; 0 for all that is left of the line.
    pub(super) length: u32,
}

impl Place {
    fn new(part: Part<'_>, span: Span) -> Self {
        let one_line = span.start.line() == span.end.line();
        let length = if one_line {
            span.end.col().saturating_sub(span.start.col())
        } else {
            0
        };
        Self {
            byte: part.byte + span.start.byte_offset().unwrap_or_default(),
            line: narrow(part.lines + span.start.line()),
            column: column(part, span.start),
            length: narrow(length),
        }
    }
}

fn column(part: Part<'_>, marker: Marker) -> u32 {
    let before = if marker.line() == 1 { part.columns } else { 0 };
    narrow(before + marker.col() + 1)
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// One node of the tree.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub(super) value: Value<'t>,
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'t> {
    Scalar(Scalar<'t>),
    List(Vec<Node<'t>>),
    /// In the order written. Keys may repeat: whoever reads decides what that means.
    Map(Vec<Entry<'t>>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry<'t> {
    pub(super) key: Cow<'t, str>,
    pub(super) key_place: Place,
    pub(super) node: Node<'t>,
    /// Came with `<<`, so that an entry of the mapping itself goes before it.
    merged: bool,
}

impl Node<'_> {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if matches!(scalar.resolve(), Resolved::Null))
    }

    /// The value of a key, the last one if it repeats, `None` also for null.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        let entry = entries.iter().rev().find(|entry| entry.key == key)?;
        (!entry.node.is_null()).then_some(&entry.node)
    }

    /// The text of a scalar, whatever its type.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What this is, for messages.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::Scalar(scalar) => scalar.describe(),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }
}

/// Text that is not YAML, or YAML that no manifest needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct YamlError {
    pub(super) message: String,
    pub(super) place: Place,
}

/// Hands over the documents of a text one by one, without empty ones.
///
/// # Errors
/// What ended them early.
pub(super) fn documents<'t>(part: Part<'t>, each: &mut dyn FnMut(Node<'t>)) -> Result<(), YamlError> {
    let mut builder = Builder {
        part,
        each,
        open: Vec::new(),
        anchors: HashMap::new(),
        aliased: 0,
    };
    for event in Parser::new_from_str(part.text) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                let place = Place::new(part, Span::empty(*error.marker()));
                return Err(YamlError {
                    message: error.info().to_owned(),
                    place,
                });
            }
        }
    }
    Ok(())
}

/// A collection that is still open.
struct Open<'t> {
    node: Node<'t>,
    anchor: usize,
    /// Of a mapping: the key whose value comes next.
    key: Option<(Cow<'t, str>, Place)>,
    /// In brackets, so that its end can be seen.
    is_flow: bool,
    /// Something was merged into this mapping.
    merged: bool,
    /// Nodes and levels inside, this one included.
    nodes: usize,
    levels: usize,
}

#[derive(Clone)]
struct Anchored<'t> {
    node: Node<'t>,
    nodes: usize,
    levels: usize,
}

struct Builder<'t, 'e> {
    part: Part<'t>,
    each: &'e mut dyn FnMut(Node<'t>),
    open: Vec<Open<'t>>,
    anchors: HashMap<usize, Anchored<'t>>,
    aliased: usize,
}

impl<'t> Builder<'t, '_> {
    fn take(&mut self, event: Event<'t>, span: Span) -> Result<(), YamlError> {
        let place = Place::new(self.part, span);
        match event {
            Event::DocumentStart(..) => {
                self.anchors.clear();
                self.aliased = 0;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let text_tag = tag.as_deref().and_then(Tag::core_suffix) == Some("str");
                check_tag(tag.as_deref(), place)?;
                let plain = style == ScalarStyle::Plain && !text_tag;
                let node = Node {
                    value: Value::Scalar(Scalar { text, plain }),
                    place,
                };
                self.add(node, anchor, 1, 1)?;
            }
            Event::SequenceStart(style, anchor, tag) => {
                check_tag(tag.as_deref(), place)?;
                self.start(Value::List(Vec::new()), style, anchor, place)?;
            }
            Event::MappingStart(style, anchor, tag) => {
                check_tag(tag.as_deref(), place)?;
                self.start(Value::Map(Vec::new()), style, anchor, place)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(mut done) = self.open.pop() {
                    let whole = &mut done.node.place;
                    if done.is_flow && narrow(self.part.lines + span.end.line()) == whole.line {
                        whole.length = column(self.part, span.end).saturating_sub(whole.column);
                    }
                    self.add(done.node, done.anchor, done.nodes, done.levels)?;
                }
            }
            Event::Alias(anchor) => {
                let Some(Anchored { node, nodes, levels }) = self.anchors.get(&anchor).cloned() else {
                    return Err(YamlError {
                        message: "this alias refers to itself".into(),
                        place,
                    });
                };
                self.aliased += nodes;
                if self.aliased > MAX_ALIASED {
                    let message = format!("aliases add more than {MAX_ALIASED} nodes to this document");
                    return Err(YamlError { message, place });
                }
                self.add(Node { place, ..node }, 0, nodes, levels)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn start(
        &mut self,
        value: Value<'t>,
        style: StructureStyle,
        anchor: usize,
        place: Place,
    ) -> Result<(), YamlError> {
        let place = Place { length: 0, ..place };
        self.check_depth(1, place)?;
        let is_flow = style == StructureStyle::Flow;
        let node = Node { value, place };
        self.open.push(Open {
            node,
            anchor,
            key: None,
            is_flow,
            merged: false,
            nodes: 1,
            levels: 1,
        });
        Ok(())
    }

    fn check_depth(&self, levels: usize, place: Place) -> Result<(), YamlError> {
        if self.open.len() + levels > MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} deep");
            return Err(YamlError { message, place });
        }
        Ok(())
    }

    fn add(&mut self, node: Node<'t>, anchor: usize, nodes: usize, levels: usize) -> Result<(), YamlError> {
        self.check_depth(levels, node.place)?;
        if anchor != 0 {
            self.anchors.insert(
                anchor,
                Anchored {
                    node: node.clone(),
                    nodes,
                    levels,
                },
            );
        }
        let Some(open) = self.open.last_mut() else {
            if !node.is_null() {
                (self.each)(node);
            }
            return Ok(());
        };
        open.nodes += nodes;
        open.levels = open.levels.max(levels + 1);
        match (&mut open.node.value, open.key.take()) {
            (Value::List(list), _) => list.push(node),
            (Value::Map(entries), Some((key, _))) if key == "<<" => {
                open.merged = true;
                merge(entries, node)?;
            }
            (Value::Map(entries), Some((key, key_place))) => {
                if open.merged {
                    entries.retain(|entry| !entry.merged || entry.key != key);
                }
                entries.push(Entry {
                    key,
                    key_place,
                    node,
                    merged: false,
                });
            }
            (Value::Map(_), None) => match node.value {
                Value::Scalar(scalar) => open.key = Some((scalar.text, node.place)),
                Value::List(_) | Value::Map(_) => {
                    return Err(YamlError {
                        message: "a key must be a plain name".into(),
                        place: node.place,
                    });
                }
            },
            (Value::Scalar(_), _) => {}
        }
        Ok(())
    }
}

/// Adds the entries of the merged mapping that are not there yet.
fn merge<'t>(entries: &mut Vec<Entry<'t>>, node: Node<'t>) -> Result<(), YamlError> {
    let place = node.place;
    let sources = match node.value {
        Value::List(list) => list,
        _ => vec![node],
    };
    for source in sources {
        let Value::Map(merged) = source.value else {
            return Err(YamlError {
                message: "'<<' takes a mapping or a list of mappings".into(),
                place,
            });
        };
        for entry in merged {
            if !entries.iter().any(|known| known.key == entry.key) {
                entries.push(Entry {
                    merged: true,
                    ..entry
                });
            }
        }
    }
    Ok(())
}

/// Tags of YAML's own types say nothing that the value does not; others have no meaning in a manifest.
fn check_tag(tag: Option<&Tag>, place: Place) -> Result<(), YamlError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => {
            let message = format!("the tag {} has no meaning in a manifest", tag.original());
            Err(YamlError { message, place })
        }
        _ => Ok(()),
    }
}
