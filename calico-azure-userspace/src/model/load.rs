//! Files and directories of manifests.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::object::{self, Objects};
use super::problem::{Problem, Severity};
use super::report::Report;
use super::types::{Key, Resource, Tier};
use super::yaml::{self, Part};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Each key once.
    pub resources: Vec<Resource>,
    /// Where each of `resources` is.
    pub origins: Vec<Origin>,
    pub problems: Vec<Problem>,
    /// Objects that policy does not concern, or that are not enforced: `Kind namespace/name (apiVersion)`.
    pub ignored: Vec<String>,
    /// A file could not be read, or not to its end: what is here may be half of what was meant.
    pub unreadable: bool,
    pub(crate) tier_refs: Vec<TierRef>,
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub file: Arc<Path>,
    /// From 1.
    pub line: u32,
}

/// A tier that a policy names, and what to say if there is none.
#[derive(Clone, Debug)]
pub(crate) struct TierRef {
    pub(crate) tier: String,
    pub(crate) problem: Problem,
}

impl Loaded {
    /// Policies whose tier is not among the resources. The tiers that Calico makes itself need not be.
    #[must_use]
    pub fn missing_tiers(&self) -> Vec<Problem> {
        let tiers: BTreeSet<&str> = self
            .resources
            .iter()
            .filter_map(|resource| match resource {
                Resource::Tier(tier) => Some(tier.name.as_str()),
                _ => None,
            })
            .collect();
        let is_missing =
            |tier: &&TierRef| !tiers.contains(tier.tier.as_str()) && Tier::builtin(&tier.tier).is_none();
        self.tier_refs
            .iter()
            .filter(is_missing)
            .map(|tier| tier.problem.clone())
            .collect()
    }

    /// Adds what was read after this; keys may repeat then.
    fn append(&mut self, other: Self) {
        let Self {
            resources,
            origins,
            problems,
            ignored,
            unreadable,
            tier_refs,
        } = other;
        self.resources.extend(resources);
        self.origins.extend(origins);
        self.problems.extend(problems);
        self.ignored.extend(ignored);
        self.unreadable |= unreadable;
        self.tier_refs.extend(tier_refs);
    }

    /// Adds what was read after this; of an object that is here already, the first stays.
    fn add(&mut self, mut other: Self, seen: &mut HashMap<Key, Origin>) {
        let resources = std::mem::take(&mut other.resources);
        let origins = std::mem::take(&mut other.origins);
        self.append(other);
        for (resource, origin) in resources.into_iter().zip(origins) {
            match seen.entry(resource.key()) {
                Entry::Occupied(first) => self.problems.push(duplicate(first.key(), first.get(), &origin)),
                Entry::Vacant(place) => {
                    place.insert(origin.clone());
                    self.resources.push(resource);
                    self.origins.push(origin);
                }
            }
        }
    }

    /// A file that could not be read.
    pub(crate) fn failed(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
            unreadable: true,
            ..Self::default()
        }
    }
}

/// The second of two objects with one key.
pub(crate) fn duplicate(key: &Key, first: &Origin, second: &Origin) -> Problem {
    Problem {
        line: Some(second.line),
        object: Some(key.to_string()),
        message: format!(
            "this object is in {}:{} as well; this one is ignored",
            first.file.display(),
            first.line
        ),
        help: Some("remove one of them, or rename it".to_owned()),
        ..Problem::of_file(&second.file, String::new())
    }
}

/// Most threads that read one file.
const MAX_THREADS: usize = 8;

/// Reads the text of one file. Objects before a place that is not YAML are there all the same.
#[must_use]
pub fn parse_text(file: &Path, text: &str) -> Loaded {
    let mut loaded = Loaded::default();
    loaded.add(parse(file, text), &mut HashMap::new());
    loaded
}

/// Keys may repeat in what this returns.
fn parse(file: &Path, text: &str) -> Loaded {
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get().min(MAX_THREADS));
    let parts = yaml::parts(text, threads);
    let mut loaded = Loaded::default();
    thread::scope(|scope| {
        let others: Vec<_> = parts
            .iter()
            .skip(1)
            .map(|part| {
                thread::Builder::new()
                    .spawn_scoped(scope, || parse_part(file, text, *part))
                    .ok()
            })
            .collect();
        for (part, thread) in parts.iter().zip([None].into_iter().chain(others)) {
            let read = thread.and_then(|thread| thread.join().ok());
            let (read, to_the_end) = read.unwrap_or_else(|| parse_part(file, text, *part));
            loaded.append(read);
            // What comes after a place that is not YAML is not known to be a document.
            if !to_the_end {
                break;
            }
        }
    });
    loaded
}

/// The objects of a part, and whether all of it is YAML.
fn parse_part(file: &Path, text: &str, part: Part<'_>) -> (Loaded, bool) {
    let mut report = Report::new(file, text);
    let mut objects = Objects::default();
    let end = yaml::values(part).into_iter().try_for_each(|part| {
        yaml::documents(part, &mut |node| {
            object::document(&mut report, &node, &mut objects);
        })
    });
    report.set_object(None);
    if let Err(error) = &end {
        objects.unreadable = true;
        let message = format!("this is not YAML: {error}");
        if ["{{ ", "{{-", "{{."].iter().any(|opening| text.contains(opening)) {
            let help = "this looks like a template: render it first, as with helm template";
            report.error_with_help(error.place, message, help);
        } else {
            report.error(error.place, message);
        }
    }
    let Objects {
        resources,
        ignored,
        tier_refs,
        unreadable,
    } = objects;
    let (resources, origins) = resources.into_iter().unzip();
    let problems = report.into_problems();
    (
        Loaded {
            resources,
            origins,
            problems,
            ignored,
            unreadable,
            tier_refs,
        },
        end.is_ok(),
    )
}

/// Reads one file.
#[must_use]
pub fn load_file(file: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    loaded.add(load(file), &mut HashMap::new());
    loaded
}

fn load(file: &Path) -> Loaded {
    match read(file) {
        Ok(text) => parse(file, &text),
        Err(error) => Loaded::failed(Problem::of_file(file, format!("cannot read it: {error}"))),
    }
}

fn read(file: &Path) -> io::Result<String> {
    // Opening a pipe would wait for a writer.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected a regular file",
        ));
    }
    String::from_utf8(fs::read(file)?).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to());
        let line = yaml::line_breaks(&String::from_utf8_lossy(good.unwrap_or_default())) + 1;
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected UTF-8 text, and line {line} is not"),
        )
    })
}

/// Reads files, and directories with everything below them that ends in `.yaml`, `.yml` or `.json`. Order of paths
/// does not matter to what is found, but of duplicates the first stays.
#[must_use]
pub fn load_paths(paths: &[PathBuf]) -> Loaded {
    let mut loaded = Loaded::default();
    let mut seen = HashMap::new();
    let mut read = BTreeSet::new();
    for path in paths {
        let files = if path.is_dir() {
            manifests(path)
        } else {
            Ok(vec![path.clone()])
        };
        let files = match files {
            Ok(files) => files,
            Err(problem) => {
                loaded.add(Loaded::failed(*problem), &mut seen);
                continue;
            }
        };
        if files.is_empty() {
            let problem = Problem {
                help: Some("manifests end in .yaml, .yml or .json".to_owned()),
                ..Problem::of_file(path, "there are no manifests here".to_owned())
            };
            loaded.add(Loaded::failed(problem), &mut seen);
        }
        for file in files {
            if read.insert(file.canonicalize().unwrap_or_else(|_| file.clone())) {
                loaded.add(load(&file), &mut seen);
            }
        }
    }
    loaded
}

/// The manifests in and below a directory, sorted. Symbolic links are followed (a mounted ConfigMap is made of them),
/// hidden entries are passed over.
///
/// # Errors
/// The first directory that cannot be listed.
pub fn manifests(dir: &Path) -> Result<Vec<PathBuf>, Box<Problem>> {
    let mut files = Vec::new();
    walk(dir, &mut BTreeSet::new(), &mut files)?;
    files.sort_unstable();
    Ok(files)
}

fn walk(dir: &Path, visited: &mut BTreeSet<PathBuf>, files: &mut Vec<PathBuf>) -> Result<(), Box<Problem>> {
    let failed = |error: io::Error| {
        Box::new(Problem::of_file(
            dir,
            format!("cannot list this directory: {error}"),
        ))
    };
    // A link may lead back up, or to what is found anyway.
    if !visited.insert(dir.canonicalize().map_err(failed)?) {
        return Ok(());
    }
    let entries = fs::read_dir(dir)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    // Which of two links to one directory is followed must not depend on luck.
    paths.sort_unstable();
    for path in paths {
        let is_hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden {
            continue;
        }
        if !path.is_dir() {
            files.extend(is_manifest(&path).then_some(path));
        } else if let Err(problem) = walk(&path, visited, files)
            // Otherwise it went away while we looked, and its manifests with it.
            && path.exists()
        {
            return Err(problem);
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending == "yaml" || ending == "yml" || ending == "json")
}

impl Problem {
    /// An error that concerns a file or directory as a whole.
    pub(crate) fn of_file(file: &Path, message: String) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            line: None,
            column: None,
            object: None,
            field: None,
            message,
            help: None,
            excerpt: None,
        }
    }
}
