//! The soak, for some seconds: that it finds nothing, and that it would.

use calico_azure_tests::soak::{Args, run};

#[test]
fn half_a_minute_of_load_and_change_finds_nothing() {
    let mut lines = Vec::new();
    let findings = run(&Args::short(30, 400), &mut |line| lines.push(line.to_owned())).unwrap();
    assert!(findings.is_empty(), "{findings:#?}\n{}", lines.join("\n"));
    let all = lines.iter().find(|line| line.starts_with("in all")).unwrap();
    assert!(all.contains("kills 1") || all.contains("kills 2"), "{all}");
}
