//! The selector language: parser with positions, evaluation over labels, canonical printing.
//!
//! A leaf: it knows labels as strings and nothing else. [`Selector`] is immutable and cheap to clone; two selectors
//! are equal if their canonical forms are, so `a == 'x' && has(b)` equals `(a == "x" && has(b))`.

mod ast;
mod lexer;
mod parser;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ast::{Node, Op};

/// Longest label key, as Calico's tokenizer has it.
pub const MAX_LABEL: usize = 512;
/// Deepest nesting of parentheses and negations.
pub const MAX_DEPTH: usize = 128;

/// Something that has labels.
pub trait LabelSource {
    /// The label's value, if it is there.
    fn get(&self, key: &str) -> Option<&str>;
}

impl LabelSource for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<&str> {
        Self::get(self, key).map(String::as_str)
    }
}

impl LabelSource for HashMap<String, String> {
    fn get(&self, key: &str) -> Option<&str> {
        Self::get(self, key).map(String::as_str)
    }
}

/// Text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at character {}", .offset + 1)]
pub struct ParseError {
    /// What is wrong, and what was expected.
    pub message: String,
    /// Where, in bytes from the start of the text.
    pub offset: usize,
}

/// A parsed selector.
#[derive(Clone)]
pub struct Selector {
    inner: Arc<Inner>,
}

struct Inner {
    root: Node,
    canonical: String,
}

impl Selector {
    /// Parses a selector; empty text selects everything.
    ///
    /// # Errors
    /// [`ParseError`] with the place.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parser::parse(text).map(Self::from_node)
    }

    fn from_node(root: Node) -> Self {
        let root = root.normalised();
        let canonical = root.to_string();
        Self {
            inner: Arc::new(Inner { root, canonical }),
        }
    }

    fn node(&self) -> Node {
        self.inner.root.clone()
    }

    /// `all()`.
    #[must_use]
    pub fn all() -> Self {
        Self::from_node(Node::All)
    }

    /// `has(key)`.
    #[must_use]
    pub fn has(key: &str) -> Self {
        Self::from_node(Node::Has(key.to_owned()))
    }

    /// `!has(key)`.
    #[must_use]
    pub fn not_has(key: &str) -> Self {
        Self::has(key).not()
    }

    /// `key == 'value'`.
    #[must_use]
    pub fn eq(key: &str, value: &str) -> Self {
        Self::from_node(Node::Compare {
            key: key.to_owned(),
            op: Op::Eq,
            value: value.to_owned(),
        })
    }

    /// `key in { … }`.
    #[must_use]
    pub fn in_set<V: Into<String>>(key: &str, values: impl IntoIterator<Item = V>) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        Self::from_node(Node::In {
            key: key.to_owned(),
            values,
            negated: false,
        })
    }

    /// `key not in { … }`.
    #[must_use]
    pub fn not_in_set<V: Into<String>>(key: &str, values: impl IntoIterator<Item = V>) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        Self::from_node(Node::In {
            key: key.to_owned(),
            values,
            negated: true,
        })
    }

    /// `self && other`; `all()` on either side disappears.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        if self.is_all() {
            return other.clone();
        }
        if other.is_all() {
            return self.clone();
        }
        Self::from_node(Node::And(vec![self.node(), other.node()]))
    }

    /// `self || other`.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self::from_node(Node::Or(vec![self.node(), other.node()]))
    }

    /// `!self`.
    #[must_use]
    pub fn not(&self) -> Self {
        Self::from_node(Node::Not(Box::new(self.node())))
    }

    /// The same selector over keys that begin with `prefix`: how a namespace selector is asked of an endpoint,
    /// which inherits its namespace's labels under `pcns.`.
    #[must_use]
    pub fn with_key_prefix(&self, prefix: &str) -> Self {
        Self::from_node(self.inner.root.with_key_prefix(prefix))
    }

    /// The same selector with `with` in place of every `all()`.
    #[must_use]
    pub fn replace_all(&self, with: &Self) -> Self {
        Self::from_node(self.inner.root.replace_all(&with.inner.root))
    }

    /// Whether this is exactly `all()`.
    #[must_use]
    pub fn is_all(&self) -> bool {
        matches!(self.inner.root, Node::All)
    }

    /// Whether this is exactly `global()`.
    #[must_use]
    pub fn is_global(&self) -> bool {
        matches!(self.inner.root, Node::Global)
    }

    /// Whether `global()` occurs anywhere.
    #[must_use]
    pub fn contains_global(&self) -> bool {
        self.inner.root.contains_global()
    }

    /// Whether something with these labels is selected. `global()` holds for everything here; what it means in a
    /// rule is the model's business.
    #[must_use]
    pub fn matches(&self, labels: &impl LabelSource) -> bool {
        self.inner.root.matches(labels)
    }

    /// A label that everything selected has with this very value, if the selector says so plainly: for indexes.
    #[must_use]
    pub fn required_equals(&self) -> Option<(&str, &str)> {
        self.inner.root.required_equals()
    }

    /// The canonical form; parses back to an equal selector.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.inner.canonical
    }
}

impl Default for Selector {
    fn default() -> Self {
        Self::all()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.canonical())
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({})", self.canonical())
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.canonical() == other.canonical()
    }
}

impl Eq for Selector {}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> Ordering {
        self.canonical().cmp(other.canonical())
    }
}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

#[cfg(test)]
mod tests;
