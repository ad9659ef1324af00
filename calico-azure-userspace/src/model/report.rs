//! Reading typed values out of a tree, with every disappointment reported at its place and field.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::problem::{Excerpt, Problem, Severity};
use super::types::Labels;
pub(super) use super::words::{closest, quote};
use super::yaml::{Entry, Node, Place, Resolved, Value};

/// The value cannot be used, and a problem says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reported;

pub(super) type Read<T> = Result<T, Reported>;

#[derive(Clone, Copy, Debug)]
enum Step {
    Key(&'static str),
    Index(usize),
}

/// What has been found wrong with one file so far, and where in it we are.
pub(super) struct Report<'t> {
    file: Arc<Path>,
    text: &'t str,
    object: Option<String>,
    path: Vec<Step>,
    problems: Vec<Problem>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &Path, text: &'t str) -> Self {
        Self {
            file: file.into(),
            text,
            object: None,
            path: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    pub(super) fn file(&self) -> Arc<Path> {
        Arc::clone(&self.file)
    }

    /// The object that problems are about from now on.
    pub(super) fn set_object(&mut self, object: Option<String>) {
        self.object = object;
    }

    /// Reads something inside the field.
    pub(super) fn within<R>(&mut self, key: &'static str, read: impl FnOnce(&mut Self) -> R) -> R {
        self.step(Step::Key(key), read)
    }

    /// Reads something inside the list item.
    pub(super) fn item<R>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> R) -> R {
        self.step(Step::Index(index), read)
    }

    fn step<R>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(step);
        let result = read(self);
        self.path.pop();
        result
    }

    fn field(&self) -> Option<String> {
        let mut field = String::new();
        for step in &self.path {
            let dot = if field.is_empty() { "" } else { "." };
            // Writing to a string does not fail.
            let _ok = match step {
                Step::Key(key) => write!(field, "{dot}{key}"),
                Step::Index(index) => write!(field, "[{index}]"),
            };
        }
        (!field.is_empty()).then_some(field)
    }

    /// A problem at a place, not yet among those found.
    pub(super) fn problem(
        &self,
        severity: Severity,
        place: Place,
        message: String,
        help: Option<String>,
    ) -> Problem {
        Problem {
            severity,
            file: self.file.to_path_buf(),
            line: Some(place.line),
            column: Some(place.column),
            object: self.object.clone(),
            field: self.field(),
            message,
            help,
            excerpt: Excerpt::new(self.text, place.byte, place.length as usize),
        }
    }

    pub(super) fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    pub(super) fn error(&mut self, place: Place, message: impl Into<String>) -> Reported {
        let problem = self.problem(Severity::Error, place, message.into(), None);
        self.push(problem);
        Reported
    }

    pub(super) fn error_with_help(
        &mut self,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Reported {
        let problem = self.problem(Severity::Error, place, message.into(), Some(help.into()));
        self.push(problem);
        Reported
    }

    pub(super) fn warning(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        let problem = self.problem(Severity::Warning, place, message.into(), help);
        self.push(problem);
    }

    /// The part of a scalar that begins at a byte of its value, if it is written as it is.
    pub(super) fn inside(&self, node: &Node<'_>, offset: usize) -> Place {
        let exact = || {
            let text = node.text()?;
            let source = self.text.get(node.place.byte..)?;
            let quote = usize::from(source.starts_with(['"', '\'']));
            let rest = source.get(quote..)?.strip_prefix(text)?;
            if rest.is_empty() && offset > text.len() || text.contains('\n') {
                return None;
            }
            let before =
                u32::try_from(text.get(..offset)?.chars().count()).ok()? + u32::try_from(quote).ok()?;
            let word = text
                .get(offset..)?
                .split([' ', '\t'])
                .next()
                .unwrap_or_default()
                .chars()
                .count();
            Some(Place {
                byte: node.place.byte + quote + offset,
                line: node.place.line,
                column: node.place.column + before,
                length: u32::try_from(word.max(1)).ok()?,
            })
        };
        exact().unwrap_or(node.place)
    }

    fn unexpected(&mut self, node: &Node<'_>, expected: &str) -> Reported {
        self.error(
            node.place,
            format!("expected {expected}, found {}", node.describe()),
        )
    }

    /// A string; one that only looks like another type has to be quoted, as for the API.
    pub(super) fn string<'n>(&mut self, node: &'n Node<'t>) -> Read<&'n str> {
        match &node.value {
            Value::Scalar(scalar) if scalar.resolve() == Resolved::Text => Ok(&scalar.text),
            Value::Scalar(scalar) => {
                let message = format!("expected a string, found {}", scalar.describe());
                Err(self.error_with_help(
                    node.place,
                    message,
                    format!("put it in quotes: \"{}\"", scalar.text),
                ))
            }
            _ => Err(self.unexpected(node, "a string")),
        }
    }

    pub(super) fn boolean(&mut self, node: &Node<'t>) -> Read<bool> {
        match &node.value {
            Value::Scalar(scalar) if let Resolved::Bool(value) = scalar.resolve() => Ok(value),
            _ => Err(self.unexpected(node, "true or false")),
        }
    }

    /// A finite number.
    #[expect(
        clippy::cast_precision_loss,
        reason = "the API, too, keeps these as 64-bit floats"
    )]
    pub(super) fn number(&mut self, node: &Node<'t>) -> Read<f64> {
        match &node.value {
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Integer(value) => Ok(value as f64),
                Resolved::Number(value) => Ok(value),
                _ => Err(self.unexpected(node, "a number")),
            },
            _ => Err(self.unexpected(node, "a number")),
        }
    }

    pub(super) fn integer<T: TryFrom<i128>>(&mut self, node: &Node<'t>, expected: &str) -> Read<T> {
        match &node.value {
            Value::Scalar(scalar) if let Resolved::Integer(value) = scalar.resolve() => {
                T::try_from(value).map_err(|_| self.unexpected(node, expected))
            }
            _ => Err(self.unexpected(node, expected)),
        }
    }

    pub(super) fn list<'n>(&mut self, node: &'n Node<'t>) -> Read<&'n [Node<'t>]> {
        match &node.value {
            Value::List(list) => Ok(list),
            _ => Err(self.unexpected(node, "a list")),
        }
    }

    pub(super) fn is_empty_list(&self, node: &Node<'t>) -> bool {
        matches!(&node.value, Value::List(list) if list.is_empty())
    }

    /// Every item of a list that can be read; and whether that is all of them.
    pub(super) fn each<'n, T>(
        &mut self,
        list: &'n [Node<'t>],
        mut read: impl FnMut(&mut Self, &'n Node<'t>) -> Read<T>,
    ) -> (Vec<T>, Read<()>) {
        let mut items = Vec::with_capacity(list.len());
        let mut complete = Ok(());
        for (index, node) in list.iter().enumerate() {
            match self.item(index, |report| read(report, node)) {
                Ok(item) => items.push(item),
                Err(Reported) => complete = Err(Reported),
            }
        }
        (items, complete)
    }

    /// Every item of a list, or nothing.
    pub(super) fn all<'n, T>(
        &mut self,
        node: &'n Node<'t>,
        read: impl FnMut(&mut Self, &'n Node<'t>) -> Read<T>,
    ) -> Read<Vec<T>> {
        let list = self.list(node)?;
        let (items, complete) = self.each(list, read);
        complete.map(|()| items)
    }

    /// A mapping, without a look at its keys.
    pub(super) fn fields<'n>(&mut self, node: &'n Node<'t>) -> Read<Fields<'n, 't>> {
        match &node.value {
            Value::Map(entries) => Ok(Fields {
                entries,
                place: node.place,
                complete: true,
            }),
            _ => Err(self.unexpected(node, "a mapping")),
        }
    }

    /// A mapping whose unknown keys do not matter. Of a repeated one, which is reported, the last counts.
    pub(super) fn lenient<'n>(&mut self, node: &'n Node<'t>) -> Read<Fields<'n, 't>> {
        let fields = self.fields(node)?;
        let _repeats = self.repeats(fields.entries);
        Ok(fields)
    }

    /// A mapping whose keys are data. It cannot be used if one is repeated.
    pub(super) fn distinct<'n>(&mut self, node: &'n Node<'t>) -> Read<&'n [Entry<'t>]> {
        let entries = self.fields(node)?.entries;
        self.repeats(entries).map(|()| entries)
    }

    fn repeats(&mut self, entries: &[Entry<'t>]) -> Read<()> {
        /// Comparing a few keys with one another is faster than any set.
        const FEW: usize = 32;
        let mut known = BTreeSet::new();
        let mut distinct = Ok(());
        for (index, entry) in entries.iter().enumerate() {
            let is_repeated = if entries.len() <= FEW {
                let mut earlier = entries.iter().take(index);
                earlier.any(|earlier| earlier.key == entry.key)
            } else {
                !known.insert(entry.key.as_ref())
            };
            if is_repeated {
                distinct = Err(self.given_twice(&entry.key, entry.key_place));
            }
        }
        distinct
    }

    fn given_twice(&mut self, key: &str, place: Place) -> Reported {
        self.error(place, format!("field {} is given twice", quote(key)))
    }

    /// A mapping to strings, like labels. A value that is none is reported, and taken as it is written.
    pub(super) fn strings(&mut self, node: &Node<'t>) -> Read<Labels> {
        let mut strings = Labels::new();
        for entry in self.lenient(node)?.entries {
            // A bare `key:` is an empty value, to kubectl as well.
            let value = if entry.node.is_null() {
                Some("")
            } else {
                self.string(&entry.node).ok().or(entry.node.text())
            };
            strings.extend(value.map(|value| (entry.key.to_string(), value.to_owned())));
        }
        Ok(strings)
    }

    /// A mapping in which every key counts. Unknown and repeated ones are reported, and leave it not `complete`.
    pub(super) fn strict<'n>(&mut self, node: &'n Node<'t>, known: &[&'static str]) -> Read<Fields<'n, 't>> {
        let mut fields = self.fields(node)?;
        for (index, entry) in fields.entries.iter().enumerate() {
            let (key, place) = (&entry.key, entry.key_place);
            if !known.contains(&key.as_ref()) {
                let message = format!("unknown field {}", quote(key));
                let help = match closest(key, known.iter().copied()) {
                    Some(name) => format!("did you mean {name:?}?"),
                    None => format!("the fields here are {}", known.join(", ")),
                };
                self.error_with_help(place, message, help);
                fields.complete = false;
            } else if fields
                .entries
                .iter()
                .take(index)
                .any(|earlier| earlier.key == *key)
            {
                self.given_twice(key, place);
                fields.complete = false;
            }
        }
        Ok(fields)
    }
}

/// A mapping.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n, 't> {
    pub(super) entries: &'n [Entry<'t>],
    pub(super) place: Place,
    /// Every key was known and given once.
    pub(super) complete: bool,
}

impl<'n, 't> Fields<'n, 't> {
    /// The value of a field; null is as good as absent. Of a repeated field the last, as Kubernetes' reader has it.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        let entry = self.entries.iter().rev().find(|entry| entry.key == key)?;
        (!entry.node.is_null()).then_some(&entry.node)
    }

    /// Reads a field if it is there. In a mapping that was read strictly a repeated field cannot be used.
    pub(super) fn read<T>(
        &self,
        report: &mut Report<'t>,
        key: &'static str,
        read: impl FnOnce(&mut Report<'t>, &'n Node<'t>) -> Read<T>,
    ) -> Read<Option<T>> {
        if !self.complete && self.entries.iter().filter(|entry| entry.key == key).count() > 1 {
            return Err(Reported);
        }
        match self.get(key) {
            Some(node) => report.within(key, |report| read(report, node)).map(Some),
            None => Ok(None),
        }
    }
}
