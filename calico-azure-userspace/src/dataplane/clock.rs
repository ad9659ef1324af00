//! The kernel's cheapest clock, which the programs keep conntrack's time by.

use std::mem::MaybeUninit;

/// Nanoseconds per jiffy: the resolution of the coarse clocks (kernel/time/posix-timers.c, `KTIME_LOW_RES`).
#[must_use]
pub(super) fn tick() -> u32 {
    /// Ten milliseconds, the longest jiffy that kernels are built with: timeouts would only be shorter.
    const LONGEST: u32 = 10_000_000;
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is to a timespec of ours, which is read only if the call filled it.
    let resolution = unsafe {
        (libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, time.as_mut_ptr()) == 0).then(|| time.assume_init())
    };
    let nanoseconds = resolution.and_then(|time| u32::try_from(time.tv_nsec).ok());
    nanoseconds.filter(|tick| *tick > 0).unwrap_or(LONGEST)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_jiffy_is_between_one_and_ten_milliseconds() {
        // CONFIG_HZ is 100, 250, 300 or 1,000; TICK_NSEC of the last is a little less than a millisecond.
        assert!(
            (990_000..=10_000_000).contains(&super::tick()),
            "{}",
            super::tick()
        );
    }
}
