//! Loading one program. Only `kernel` uses this.

use std::io::ErrorKind;

use aya::programs::ProgramError;

use super::kernel::KernelError;

/// Attempts, as many as libbpf makes.
const ATTEMPTS: usize = 5;

/// Loads a program. The verifier gives up with `EAGAIN` when a signal waits for the thread, whatever the program (kernel 5.0,
/// commit c3494801cd17); then it is asked once more.
///
/// # Errors
/// [`KernelError::Program`].
pub(super) fn patiently(
    name: &'static str,
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), KernelError> {
    let mut result = load();
    for _ in 1..ATTEMPTS {
        if !result.as_ref().is_err_and(was_interrupted) {
            break;
        }
        result = load();
    }
    result.map_err(|source| KernelError::Program {
        name,
        source: Box::new(source),
    })
}

fn was_interrupted(error: &ProgramError) -> bool {
    match error {
        ProgramError::LoadError { io_error, .. } | ProgramError::IOError(io_error) => {
            io_error.kind() == ErrorKind::WouldBlock
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(number: i32) -> ProgramError {
        ProgramError::IOError(std::io::Error::from_raw_os_error(number))
    }

    fn after(refusals: usize, number: i32) -> (bool, usize) {
        let mut asked = 0;
        let result = patiently("p", || {
            asked += 1;
            if asked <= refusals {
                Err(refusal(number))
            } else {
                Ok(())
            }
        });
        (result.is_ok(), asked)
    }

    #[test]
    fn a_signal_is_no_refusal() {
        assert_eq!(after(0, libc::EAGAIN), (true, 1));
        assert_eq!(after(3, libc::EAGAIN), (true, 4));
        assert_eq!(after(99, libc::EAGAIN), (false, ATTEMPTS));
        assert_eq!(after(1, libc::EACCES), (false, 1), "the verifier has said no");
    }
}
