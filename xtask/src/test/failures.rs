//! What failed tests said, from the test harness's own output: said once more at the end of a run, which is long.

/// Lines of one test that are repeated.
const LINES: usize = 30;

/// What the failed functions of a program printed, without backtraces; of a program that ended otherwise its last lines.
pub(super) fn of(program: &str, output: &str) -> String {
    let mut said = String::new();
    let mut lines = output.lines();
    let is_head = |line: &str| line.starts_with("---- ") && line.ends_with(" ----");
    // Behind the list of functions, where their output begins.
    if lines.any(|line| line == "failures:") {
        let mut left = 0;
        for line in lines.take_while(|line| *line != "failures:") {
            if is_head(line) {
                left = LINES;
                said.push_str(&format!("  {program}: {}\n", line.trim_matches(['-', ' '])));
            } else if line == "stack backtrace:" {
                left = 0;
            } else if left > 0 && !line.is_empty() {
                said.push_str(&format!("    {line}\n"));
                left -= 1;
            }
        }
        return said;
    }
    said.push_str(&format!("  {program} ended early\n"));
    let all: Vec<&str> = output.lines().collect();
    for line in all.iter().skip(all.len().saturating_sub(LINES)) {
        said.push_str(&format!("    {line}\n"));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_tests_printed_is_found_and_backtraces_are_left_out() {
        let output = "running 2 tests\ntest a ... FAILED\ntest b ... FAILED\n\nfailures:\n\n---- a stdout ----\nsaid\n\n\
                      panicked\nstack backtrace:\n   0: main\n\n---- b stdout ----\nleft: 1\n\n\nfailures:\n    a\n    b\n\n\
                      test result: FAILED. 0 passed; 2 failed\n";
        let said = "  p: a stdout\n    said\n    panicked\n  p: b stdout\n    left: 1\n";
        assert_eq!(of("p", output), said);
        assert_eq!(of("p", "one\ntwo\n"), "  p ended early\n    one\n    two\n");
        let long = "x\n".repeat(100);
        assert_eq!(of("p", &long).lines().count(), 1 + LINES);
    }
}
