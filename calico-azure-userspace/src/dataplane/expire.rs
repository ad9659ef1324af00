//! Removes conntrack entries whose flows have been silent for too long. To the programs such an entry is dead already: this
//! gives its place to others, and makes the tables' fill a figure that means something.

use std::io;
use std::time::Duration;

use calico_azure_ebpf::abi::{Config, CtKey4, CtKey6, CtValue, Pod, map};
use calico_azure_ebpf::verdict::timeout;

use super::clock;
use super::maps::Maps;
use super::syscall;

/// What a pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Entries that were there.
    pub seen: usize,
    /// Of them, removed.
    pub removed: usize,
}

/// Looks at each entry once, and removes those that have been dead for longer than `margin`: a flow that a packet revives at this
/// very moment is then already new to the programs. Each is looked at again before it goes.
///
/// # Errors
/// What the kernel says; what was removed before stays removed.
pub fn expire(maps: &Maps, config: &Config, margin: Duration) -> io::Result<Pass> {
    let mut pass = Pass::default();
    for name in [map::CT_EST4, map::CT_HALF4] {
        table::<CtKey4>(maps, name, config, margin, |key| key.protocol, &mut pass)?;
    }
    for name in [map::CT_EST6, map::CT_HALF6] {
        table::<CtKey6>(maps, name, config, margin, |key| key.protocol, &mut pass)?;
    }
    Ok(pass)
}

fn table<K: Pod>(
    maps: &Maps,
    name: &'static str,
    config: &Config,
    margin: Duration,
    protocol: impl Fn(&K) -> u32,
    pass: &mut Pass,
) -> io::Result<()> {
    let (fd, shape) = maps.map(name)?;
    let margin = u64::try_from(margin.as_nanos()).unwrap_or(u64::MAX);
    let is_dead = |key: &[u8], value: &[u8]| {
        let (Some(key), Some(flow)) = (K::from_bytes(key), CtValue::from_bytes(value)) else {
            return false;
        };
        let protocol = u8::try_from(protocol(&key)).unwrap_or(0);
        let idle = clock::now().saturating_sub(flow.last_seen);
        idle > timeout(&flow, config, protocol).saturating_add(margin)
    };
    syscall::each(fd, shape, |key, value| {
        pass.seen += 1;
        if is_dead(key, value)
            && let Some(now) = syscall::get(fd, shape, key)?
            && is_dead(key, &now)
        {
            syscall::delete(fd, shape, key)?;
            pass.removed += 1;
        }
        Ok(())
    })
}
