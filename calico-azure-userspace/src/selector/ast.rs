//! The tree, its evaluation and its canonical text.

use std::collections::BTreeSet;
use std::fmt;

use super::LabelSource;

/// One comparison with a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Ne,
    Contains,
    StartsWith,
    EndsWith,
}

impl Op {
    fn text(self) -> &'static str {
        match self {
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Contains => "contains",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    All,
    Global,
    Has(String),
    Compare {
        key: String,
        op: Op,
        value: String,
    },
    In {
        key: String,
        values: BTreeSet<String>,
        negated: bool,
    },
    Not(Box<Node>),
    /// Two or more.
    And(Vec<Node>),
    /// Two or more.
    Or(Vec<Node>),
}

impl Node {
    /// Nested conjunctions and disjunctions made flat, so that grouping does not tell equal selectors apart.
    pub(super) fn normalised(self) -> Self {
        match self {
            Self::And(nodes) => Self::flat(nodes, |node| match node {
                Self::And(inner) => Ok(inner),
                other => Err(other),
            })
            .unwrap_or_else(Self::And),
            Self::Or(nodes) => Self::flat(nodes, |node| match node {
                Self::Or(inner) => Ok(inner),
                other => Err(other),
            })
            .unwrap_or_else(Self::Or),
            Self::Not(node) => Self::Not(Box::new(node.normalised())),
            leaf => leaf,
        }
    }

    /// `Ok` if a single node is left.
    fn flat(nodes: Vec<Self>, open: impl Fn(Self) -> Result<Vec<Self>, Self>) -> Result<Self, Vec<Self>> {
        let mut flat = Vec::with_capacity(nodes.len());
        for node in nodes {
            match open(node.normalised()) {
                Ok(inner) => flat.extend(inner),
                Err(other) => flat.push(other),
            }
        }
        match flat.pop() {
            Some(only) if flat.is_empty() => Ok(only),
            Some(last) => {
                flat.push(last);
                Err(flat)
            }
            None => Err(flat),
        }
    }

    /// An absent label equals nothing, contains nothing and is in no set; so it differs from every value.
    pub(super) fn matches(&self, labels: &impl LabelSource) -> bool {
        match self {
            Self::All | Self::Global => true,
            Self::Has(key) => labels.get(key).is_some(),
            Self::Compare { key, op, value } => {
                let label = labels.get(key);
                match op {
                    Op::Eq => label == Some(value),
                    Op::Ne => label != Some(value),
                    Op::Contains => label.is_some_and(|label| label.contains(value.as_str())),
                    Op::StartsWith => label.is_some_and(|label| label.starts_with(value.as_str())),
                    Op::EndsWith => label.is_some_and(|label| label.ends_with(value.as_str())),
                }
            }
            Self::In { key, values, negated } => {
                labels.get(key).is_some_and(|label| values.contains(label)) != *negated
            }
            Self::Not(node) => !node.matches(labels),
            Self::And(nodes) => nodes.iter().all(|node| node.matches(labels)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(labels)),
        }
    }

    pub(super) fn with_key_prefix(&self, prefix: &str) -> Self {
        let prefixed = |key: &String| format!("{prefix}{key}");
        let each = |nodes: &[Self]| nodes.iter().map(|node| node.with_key_prefix(prefix)).collect();
        match self {
            Self::All => Self::All,
            Self::Global => Self::Global,
            Self::Has(key) => Self::Has(prefixed(key)),
            Self::Compare { key, op, value } => Self::Compare {
                key: prefixed(key),
                op: *op,
                value: value.clone(),
            },
            Self::In { key, values, negated } => Self::In {
                key: prefixed(key),
                values: values.clone(),
                negated: *negated,
            },
            Self::Not(node) => Self::Not(Box::new(node.with_key_prefix(prefix))),
            Self::And(nodes) => Self::And(each(nodes)),
            Self::Or(nodes) => Self::Or(each(nodes)),
        }
    }

    pub(super) fn replace_all(&self, with: &Self) -> Self {
        let each = |nodes: &[Self]| nodes.iter().map(|node| node.replace_all(with)).collect();
        match self {
            Self::All => with.clone(),
            Self::Global | Self::Has(_) | Self::Compare { .. } | Self::In { .. } => self.clone(),
            Self::Not(node) => Self::Not(Box::new(node.replace_all(with))),
            Self::And(nodes) => Self::And(each(nodes)),
            Self::Or(nodes) => Self::Or(each(nodes)),
        }
    }

    pub(super) fn contains_global(&self) -> bool {
        match self {
            Self::Global => true,
            Self::All | Self::Has(_) | Self::Compare { .. } | Self::In { .. } => false,
            Self::Not(node) => node.contains_global(),
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().any(Self::contains_global),
        }
    }

    pub(super) fn required_equals(&self) -> Option<(&str, &str)> {
        match self {
            Self::Compare {
                key,
                op: Op::Eq,
                value,
            } => Some((key, value)),
            Self::In {
                key,
                values,
                negated: false,
            } if values.len() == 1 => values.first().map(|value| (key.as_str(), value.as_str())),
            Self::And(nodes) => nodes.iter().find_map(Self::required_equals),
            _ => None,
        }
    }

    fn join(f: &mut fmt::Formatter<'_>, nodes: &[Self], operator: &str) -> fmt::Result {
        f.write_str("(")?;
        for (i, node) in nodes.iter().enumerate() {
            if i > 0 {
                write!(f, " {operator} ")?;
            }
            write!(f, "{node}")?;
        }
        f.write_str(")")
    }
}

/// Double quotes, unless the value has one: a value never has both, because there are no escapes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(key) => write!(f, "has({key})"),
            Self::Compare { key, op, value } => write!(f, "{key} {} {}", op.text(), Quoted(value)),
            Self::In { key, values, negated } => {
                write!(f, "{key} {} {{", if *negated { "not in" } else { "in" })?;
                for (i, value) in values.iter().enumerate() {
                    write!(f, "{}{}", if i > 0 { ", " } else { "" }, Quoted(value))?;
                }
                f.write_str("}")
            }
            Self::Not(node) => write!(f, "!{node}"),
            Self::And(nodes) => Self::join(f, nodes, "&&"),
            Self::Or(nodes) => Self::join(f, nodes, "||"),
        }
    }
}
