//! How long an analysis takes; the limit is far above what an optimised build needs.

use std::time::{Duration, Instant};

use crate::analysis::example::manifests;
use crate::analysis::{Options, connectivity};
use crate::model::load::parse_text;

#[test]
fn a_thousand_pods_and_two_hundred_policies() {
    let text = manifests(1_000, 200);
    let start = Instant::now();
    let loaded = parse_text("cluster.yaml".as_ref(), &text);
    assert_eq!(loaded.problems, []);
    let read = start.elapsed();
    let found = connectivity(loaded.resources, Options::default()).unwrap();
    let analysed = start.elapsed();
    let mut size = 0;
    let mut open = 0;
    for pair in found.pairs() {
        size += serde_json::to_vec(&pair).unwrap().len();
        open += usize::from(pair.connections.is_all());
    }
    let written = start.elapsed();
    let pairs = found.pairs().count();
    println!(
        "{pairs} pairs ({open} wholly open, {size} bytes): read {read:?}, analysed {analysed:?}, written {written:?}"
    );
    // Neither all closed nor all open, or it would tell nothing.
    assert!((50_000..900_000).contains(&pairs), "{pairs} pairs");
    assert!(open * 10 > pairs && open < pairs, "{open} of {pairs}");
    assert!(written < Duration::from_secs(60), "took {written:?}");
}
