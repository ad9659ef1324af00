//! The limits of programs: instructions that this kernel's verifier follows, and stack. Alone in its binary, because it takes the
//! process's descriptors away for moments.

use anyhow::Result;
use calico_azure_tests::bench::verifier::{STACK_LIMIT, limit, verified};
use calico_azure_userspace::dataplane::kernel::{PROGRAMS, SOCKET_PROGRAMS};

#[test]
fn every_program_is_within_the_limits() -> Result<()> {
    let limit = limit();
    let all = verified()?;
    // And `to_host` and `untracked`.
    assert_eq!(all.len(), PROGRAMS.len() + SOCKET_PROGRAMS.len() + 1);
    for program in &all {
        println!("{program}");
        let followed = program.instructions.unwrap_or(u32::MAX);
        assert!(followed > 0 && followed <= limit, "{program}: over {limit}");
        assert!(!program.stack.is_empty(), "{program}");
        assert!(
            program.stack.iter().all(|bytes| *bytes <= STACK_LIMIT),
            "{program}"
        );
    }
    Ok(())
}
