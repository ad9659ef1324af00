//! Loading programs. Only `kernel` uses this.

use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use aya::Ebpf;
use aya::programs::{Program, ProgramError};

use super::kernel::KernelError;

/// Threads at most: beyond that the largest program is what takes long.
const THREADS: usize = 4;

/// Attempts, as many as libbpf makes.
const ATTEMPTS: usize = 5;

/// Loads the programs of these names, several at a time: the verifier takes a tenth of a second for some of them.
///
/// # Errors
/// [`KernelError::Missing`], [`KernelError::Program`].
pub(super) fn all(ebpf: &mut Ebpf, names: &[&'static str]) -> Result<(), KernelError> {
    if let Some(name) = names.iter().find(|name| ebpf.program(name).is_none()) {
        let kind = "program";
        return Err(KernelError::Missing { kind, name });
    }
    let wanted = ebpf
        .programs_mut()
        .filter_map(|(found, program)| Some((*names.iter().find(|name| **name == found)?, program)));
    let wanted: Vec<_> = wanted.collect();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let queue = Mutex::new(wanted.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<(), KernelError> {
        while let Some((name, program)) = next() {
            patiently(name, || load(program))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(THREADS)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(loaded) => loaded,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Loads a program. The verifier gives up with `EAGAIN` when a signal waits for the thread, whatever the program (kernel 5.0,
/// commit c3494801cd17); then it is asked once more.
///
/// # Errors
/// [`KernelError::Program`].
fn patiently(
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
