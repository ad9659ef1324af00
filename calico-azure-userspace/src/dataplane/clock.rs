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

/// What the programs read as the time, in nanoseconds: jiffies since five minutes before they overflow 32 bits, which is what
/// they start at (include/linux/jiffies.h, `INITIAL_JIFFIES`), each worth a tick. Right to within a tick.
#[must_use]
pub(super) fn now() -> u64 {
    let tick = u64::from(tick());
    let hertz = (1_000_000_000 + tick / 2) / tick;
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: as above.
    let time = unsafe {
        (libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) == 0).then(|| time.assume_init())
    };
    let nanoseconds = time.map_or(0, |time| {
        let part = |number: i64| u64::try_from(number).unwrap_or(0);
        part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
    });
    let initial = (1_u64 << 32).saturating_sub(300 * hertz);
    (initial + nanoseconds / tick) * tick
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
