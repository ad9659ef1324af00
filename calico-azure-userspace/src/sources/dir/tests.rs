//! Edits as editors and kubelets make them, and what must not lapse meanwhile.

use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use tempfile::TempDir;

use super::tracker::{GRACE, Tracker};
use super::*;
use crate::model::{Problem, Resource};

type TestResult = Result<(), Box<dyn Error>>;

fn namespace(name: &str, stage: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{stage: \"{stage}\"}}\n")
}

const BROKEN: &str = "apiVersion: v1\nkind: {Namespace\n";

/// Events as short lines.
fn show(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Upsert(Resource::Namespace(namespace)) => {
            let stage = namespace
                .labels
                .get("stage")
                .map(String::as_str)
                .unwrap_or_default();
            format!("upsert {} {stage}", namespace.name)
        }
        Event::Upsert(other) => format!("upsert {}", other.key()),
        Event::Delete(key) => format!("delete {}", key.name),
        Event::Problems(problems) => format!("{} problem(s)", problems.len()),
        Event::InSync => "in sync".into(),
    };
    events.iter().map(line).collect()
}

/// A directory and a clock that is set by hand.
struct Fixture {
    dir: TempDir,
    tracker: Tracker,
    now: Instant,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        for (name, text) in files {
            fs::write(dir.path().join(name), text)?;
        }
        Ok(Self {
            tracker: Tracker::new(dir.path().to_owned()),
            dir,
            now: Instant::now(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.path(name), text)
    }

    fn scan(&mut self) -> Vec<String> {
        show(&self.tracker.scan_at(self.now))
    }

    fn scan_later(&mut self) -> Vec<String> {
        self.now += GRACE;
        self.scan()
    }

    fn problems(&mut self) -> Vec<Problem> {
        let last = self.tracker.scan_at(self.now).into_iter().rev();
        last.filter_map(|event| {
            if let Event::Problems(problems) = event {
                Some(problems)
            } else {
                None
            }
        })
        .next()
        .unwrap_or_default()
    }
}

#[test]
fn sends_what_is_there_then_only_changes() -> TestResult {
    let mut fixture = Fixture::new(&[("a.yaml", &namespace("a", "1")), ("b.yaml", &namespace("b", "1"))])?;
    assert_eq!(fixture.scan(), ["upsert a 1", "upsert b 1", "in sync"]);
    assert_eq!(fixture.scan(), [""; 0]);
    // Same size, perhaps within one tick of the file system's clock.
    fixture.write("a.yaml", &namespace("a", "2"))?;
    assert_eq!(fixture.scan(), ["upsert a 2"]);
    fixture.write("a.yaml", &namespace("a", "3"))?;
    assert_eq!(fixture.scan(), ["upsert a 3"]);
    // Written anew with the same content.
    fixture.write("a.yaml", &namespace("a", "3"))?;
    assert_eq!(fixture.scan(), [""; 0]);
    Ok(())
}

#[test]
fn an_empty_directory_is_in_sync() -> TestResult {
    assert_eq!(Fixture::new(&[])?.scan(), ["in sync"]);
    Ok(())
}

#[test]
fn a_removed_file_is_believed_after_the_grace_only() -> TestResult {
    let mut fixture = Fixture::new(&[("a.yaml", &namespace("a", "1"))])?;
    fixture.scan();
    fs::remove_file(fixture.path("a.yaml"))?;
    assert_eq!(fixture.scan(), [""; 0]);
    assert!(
        fixture
            .tracker
            .look_again_within()
            .is_some_and(|within| within <= GRACE)
    );
    assert_eq!(fixture.scan_later(), ["delete a"]);
    assert_eq!(fixture.tracker.look_again_within(), None);
    Ok(())
}

#[test]
fn editors_may_move_the_old_file_away_or_truncate_it_first() -> TestResult {
    let mut fixture = Fixture::new(&[("a.yaml", &namespace("a", "1"))])?;
    fixture.scan();
    fs::rename(fixture.path("a.yaml"), fixture.path("a.yaml~"))?;
    assert_eq!(fixture.scan(), [""; 0]);
    fixture.write("a.yaml", "")?;
    assert_eq!(fixture.scan(), [""; 0]);
    fixture.write("a.yaml", &namespace("a", "2"))?;
    assert_eq!(fixture.scan(), ["upsert a 2"]);
    fixture.write("a.yaml", "\n")?;
    assert_eq!(fixture.scan(), [""; 0]);
    assert_eq!(fixture.scan_later(), ["delete a"]);
    Ok(())
}

#[test]
fn an_object_that_moves_to_another_file_never_goes() -> TestResult {
    let mut fixture = Fixture::new(&[("a.yaml", &namespace("a", "1"))])?;
    fixture.scan();
    fs::rename(fixture.path("a.yaml"), fixture.path("b.yaml"))?;
    assert_eq!(fixture.scan(), [""; 0]);
    assert_eq!(fixture.scan_later(), [""; 0]);
    // What is in the new file counts at once.
    fs::remove_file(fixture.path("b.yaml"))?;
    fixture.write("c.yaml", &namespace("a", "2"))?;
    assert_eq!(fixture.scan(), ["upsert a 2"]);
    assert_eq!(fixture.scan_later(), [""; 0]);
    Ok(())
}

#[test]
fn a_file_that_breaks_keeps_its_objects() -> TestResult {
    let mut fixture = Fixture::new(&[("a.yaml", &namespace("a", "1"))])?;
    fixture.scan();
    fixture.write("a.yaml", BROKEN)?;
    assert_eq!(fixture.scan(), ["1 problem(s)"]);
    assert_eq!(fixture.scan_later(), [""; 0]);
    fixture.write("a.yaml", &namespace("a", "2"))?;
    assert_eq!(fixture.scan(), ["upsert a 2", "0 problem(s)"]);
    // A link to nowhere, not UTF-8, not a file.
    fs::remove_file(fixture.path("a.yaml"))?;
    symlink("nowhere", fixture.path("a.yaml"))?;
    assert_eq!(fixture.scan(), ["1 problem(s)"]);
    fs::remove_file(fixture.path("a.yaml"))?;
    fs::write(fixture.path("a.yaml"), b"\xff")?;
    let problems = fixture.problems();
    let message = problems
        .first()
        .map(|problem| problem.message.clone())
        .unwrap_or_default();
    assert!(message.contains("UTF-8"), "{message}");
    assert_eq!(fixture.scan_later(), [""; 0]);
    Ok(())
}

#[test]
fn an_object_that_can_no_longer_be_told_stays() -> TestResult {
    let both = [namespace("a", "1"), namespace("b", "1")].join("---\n");
    let mut fixture = Fixture::new(&[("a.yaml", &both)])?;
    fixture.scan();
    fixture.write(
        "a.yaml",
        &both.replace("\"1\"", "\"2\"").replacen("kind:", "kin:", 1),
    )?;
    assert_eq!(fixture.scan(), ["upsert b 2", "1 problem(s)"]);
    assert_eq!(fixture.scan_later(), [""; 0]);
    // Removed on purpose: what is wrong with the other is no excuse.
    fixture.write("a.yaml", &namespace("b", "3").replace("\"3\"", "3"))?;
    assert_eq!(fixture.scan(), ["upsert b 3", "delete a", "1 problem(s)"]);
    Ok(())
}

const CLUSTER_POLICY: &str = "apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: p}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
";

#[test]
fn a_policy_whose_kind_gets_misspelt_stays_and_one_with_a_wrong_rule_changes() -> TestResult {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\n";
    let mut fixture = Fixture::new(&[("a.yaml", &format!("{CLUSTER_POLICY}---\n{service}"))])?;
    let found = fixture.scan();
    assert_eq!(
        found,
        [
            "upsert ClusterNetworkPolicy p",
            "upsert Service shop/s",
            "in sync"
        ]
    );
    fixture.write("a.yaml", &CLUSTER_POLICY.replace("NetworkPolicy", "NetworkPolcy"))?;
    assert_eq!(fixture.scan(), ["1 problem(s)"]);
    fixture.write("a.yaml", &CLUSTER_POLICY.replace("action: Deny", "action: Drop"))?;
    assert_eq!(
        fixture.scan(),
        ["upsert ClusterNetworkPolicy p", "delete s", "1 problem(s)"]
    );
    fixture.write("a.yaml", CLUSTER_POLICY)?;
    assert_eq!(fixture.scan(), ["upsert ClusterNetworkPolicy p", "0 problem(s)"]);
    Ok(())
}

#[test]
fn not_in_sync_before_every_file_was_understood_once() -> TestResult {
    let mut fixture = Fixture::new(&[("a.yaml", &namespace("a", "1")), ("b.yaml", BROKEN)])?;
    assert_eq!(fixture.scan(), ["upsert a 1", "1 problem(s)"]);
    assert_eq!(fixture.scan_later(), [""; 0]);
    fixture.write("b.yaml", &namespace("b", "1"))?;
    assert_eq!(fixture.scan(), ["upsert b 1", "0 problem(s)", "in sync"]);
    // A broken newcomer has no objects; the others count.
    fixture.write("c.yaml", BROKEN)?;
    assert_eq!(fixture.scan(), ["1 problem(s)"]);
    fs::remove_file(fixture.path("c.yaml"))?;
    assert_eq!(fixture.scan(), ["0 problem(s)"]);
    Ok(())
}

#[test]
fn the_first_file_of_an_object_wins_and_the_other_is_named() -> TestResult {
    let mut fixture = Fixture::new(&[("a.yaml", &namespace("a", "1")), ("b.yaml", &namespace("a", "2"))])?;
    let events = fixture.tracker.scan_at(fixture.now);
    assert_eq!(show(&events), ["upsert a 1", "1 problem(s)", "in sync"]);
    let Some(Event::Problems(problems)) = events.get(1) else {
        return Err("no problems".into());
    };
    let text = problems.iter().map(ToString::to_string).collect::<String>();
    assert!(
        text.contains("Namespace a") && text.contains("a.yaml:1") && text.contains("b.yaml"),
        "{text}"
    );
    fs::remove_file(fixture.path("a.yaml"))?;
    assert_eq!(fixture.scan(), ["upsert a 2", "0 problem(s)"]);
    Ok(())
}

#[test]
fn a_directory_that_is_gone_keeps_its_objects() -> TestResult {
    let mut fixture = Fixture::new(&[("a.yaml", &namespace("a", "1"))])?;
    fixture.scan();
    let away = fixture.dir.path().with_extension("away");
    fs::rename(fixture.dir.path(), &away)?;
    let gone = fixture.scan();
    let later = fixture.scan_later();
    fs::rename(&away, fixture.dir.path())?;
    assert_eq!(gone, ["1 problem(s)"]);
    assert_eq!(later, [""; 0]);
    assert_eq!(fixture.scan(), ["0 problem(s)"]);
    Ok(())
}

/// Takes events until the line is there.
fn until(events: &Receiver<Vec<Event>>, line: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let mut lines = Vec::new();
    loop {
        let found = events
            .recv_timeout(Duration::from_secs(10))
            .map_err(|_| format!("no {line:?} in {lines:?}"))?;
        lines.extend(show(&found));
        // Something else may come with it, as when a problem ends.
        if lines.iter().any(|found| found == line) {
            return Ok(lines);
        }
    }
}

/// As a kubelet does it.
fn publish(dir: &Path, version: &str, stage: &str) -> io::Result<()> {
    fs::create_dir(dir.join(version))?;
    fs::write(dir.join(version).join("a.yaml"), namespace("a", stage))?;
    symlink(version, dir.join("..data_tmp"))?;
    fs::rename(dir.join("..data_tmp"), dir.join("..data"))
}

#[test]
fn the_thread_follows_a_mounted_config_map() -> TestResult {
    let dir = tempfile::tempdir()?;
    publish(dir.path(), "..1", "1")?;
    symlink("..data/a.yaml", dir.path().join("a.yaml"))?;
    let (sender, events) = channel();
    watch::<Vec<Event>>(dir.path().to_owned(), sender)?;
    assert_eq!(until(&events, "in sync")?, ["upsert a 1", "in sync"]);
    publish(dir.path(), "..2", "2")?;
    assert_eq!(until(&events, "upsert a 2")?, ["upsert a 2"]);
    Ok(())
}

#[test]
fn the_thread_follows_new_directories_and_a_directory_made_anew() -> TestResult {
    let parent = tempfile::tempdir()?;
    let dir = parent.path().join("manifests");
    fs::create_dir(&dir)?;
    let (sender, events) = channel();
    watch::<Vec<Event>>(dir.clone(), sender)?;
    until(&events, "in sync")?;
    fs::create_dir(dir.join("sub"))?;
    fs::write(dir.join("sub/a.yaml"), namespace("a", "1"))?;
    until(&events, "upsert a 1")?;
    fs::remove_dir_all(&dir)?;
    fs::create_dir(&dir)?;
    fs::write(dir.join("b.yaml"), namespace("b", "1"))?;
    until(&events, "upsert b 1")?;
    fs::write(dir.join("b.yaml"), namespace("b", "2"))?;
    until(&events, "upsert b 2")?;
    Ok(())
}

#[test]
fn the_thread_ends_when_told_and_when_nobody_listens() -> TestResult {
    let dir = tempfile::tempdir()?;
    let (sender, events) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    watch_until::<Vec<Event>>(dir.path().to_owned(), sender, Arc::clone(&stop))?;
    until(&events, "in sync")?;
    stop.store(true, Ordering::Relaxed);
    let end = events.recv_timeout(Duration::from_secs(10));
    assert_eq!(end, Err(RecvTimeoutError::Disconnected));

    let (sender, events) = channel();
    let held = Arc::new(AtomicBool::new(false));
    watch_until::<Vec<Event>>(dir.path().to_owned(), sender, Arc::clone(&held))?;
    until(&events, "in sync")?;
    drop(events);
    fs::write(dir.path().join("a.yaml"), namespace("a", "1"))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Arc::strong_count(&held) > 1 {
        assert!(
            Instant::now() < deadline,
            "the thread goes on although nobody listens"
        );
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_directory_that_is_missing_at_start_is_an_error() -> TestResult {
    let dir = tempfile::tempdir()?;
    let (sender, _events) = channel::<Vec<Event>>();
    let missing = dir.path().join("missing");
    let Err(error) = watch(missing.clone(), sender.clone()) else {
        return Err("watched nothing".into());
    };
    assert!(
        error.to_string().starts_with(&missing.display().to_string()),
        "{error}"
    );
    let file = dir.path().join("a.yaml");
    fs::write(&file, "")?;
    assert!(matches!(watch(file, sender), Err(DirError::Open { .. })));
    Ok(())
}
