//! Flows that had begun before the first agent of a node: until when they are taken for what they seem to be.

use std::io;
use std::time::Duration;

use crate::dataplane::maps::Maps;

/// `abi::Config::adopt_until`: what an earlier agent wrote, or, where there was none that knew flows, `time` from now.
pub(super) fn until(maps: &Maps, first: bool, time: Duration) -> io::Result<u32> {
    if time.is_zero() {
        return Ok(0);
    }
    let earlier = maps.config()?.filter(|config| config.epoch != 0);
    Ok(match earlier {
        Some(config) => config.adopt_until,
        None if first => maps.time_in(time),
        None => 0,
    })
}
