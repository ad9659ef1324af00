//! Everything that the fuzzer found worth keeping, once more on the ordinary build.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use calico_azure_tests::fuzz::TARGETS;

/// What a single input may take, on a busy machine too.
const SLOW: Duration = Duration::from_secs(20);
const MIN_FILES: usize = 20;
/// Inputs are minimised; a large one is a mistake.
const MAX_BYTES: u64 = 16 * 1024;
const MAX_TOTAL: u64 = 1024 * 1024;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = paths.collect::<std::io::Result<_>>()?;
    files.sort();
    Ok(files)
}

#[test]
fn every_kept_input_still_holds() -> Result<()> {
    let mut broken = Vec::new();
    for target in &TARGETS {
        let files = files(&corpus().join(target.name))?;
        assert!(
            files.len() >= MIN_FILES,
            "{}: {} inputs",
            target.name,
            files.len()
        );
        for file in &files {
            let bytes = std::fs::read(file)?;
            let started = Instant::now();
            let held = catch_unwind(AssertUnwindSafe(|| (target.check)(&bytes))).is_ok();
            let took = started.elapsed();
            if !held || took > SLOW {
                broken.push(format!("{}: held: {held}, {took:?}", file.display()));
            }
        }
        println!("{}: {} inputs", target.name, files.len());
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    Ok(())
}

#[test]
fn the_corpus_stays_small_and_has_nothing_else_in_it() -> Result<()> {
    let mut total = 0;
    let mut sizes: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for dir in files(&corpus())? {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let known = name == "manifests" || TARGETS.iter().any(|target| target.name == name);
        assert!(known, "{} belongs to no target", dir.display());
        for file in files(&dir)? {
            let bytes = std::fs::metadata(&file)?.len();
            total += bytes;
            sizes.insert(file, bytes);
        }
    }
    sizes.retain(|_, bytes| *bytes > MAX_BYTES);
    assert!(sizes.is_empty(), "too large: {sizes:?}");
    assert!(total < MAX_TOTAL, "{total} bytes in all");
    Ok(())
}
