//! The flows that an earlier agent with another layout knew. `agent` takes them over when its own tables are complete.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::maps::MapData;
use calico_azure_ebpf::abi::{
    CtValue, EPOCH_MAX, LEG_DEFERS, LEG_IN, LEG_NONE, LEG_OUT, LEG_SERVICE, Pod as _, leg_defers, map,
};

use super::maps::Maps;
use super::pins::{PinError, Pins};
use super::syscall;

const FLOWS: [&str; 4] = [map::CT_EST4, map::CT_HALF4, map::CT_EST6, map::CT_HALF6];

/// Copies what other layouts of the node know and its own tables do not; returns how many flows. What their policy had
/// approved is judged again with each flow's next packet, in the direction in which the flow began.
///
/// # Errors
/// What the kernel says. What was copied before stays.
pub fn flows(pins: &Pins, into: &Maps) -> Result<usize, PinError> {
    let mut copied = 0;
    for dir in pins.earlier_flows()? {
        for name in FLOWS {
            copied += copy(&dir.join(name), name, into)?;
        }
    }
    Ok(copied)
}

fn copy(from: &Path, name: &'static str, into: &Maps) -> Result<usize, PinError> {
    // An earlier agent that did not get so far.
    if !from.exists() {
        return Ok(0);
    }
    let data = MapData::from_pin(from).map_err(|source| PinError::Map {
        path: from.to_owned(),
        source,
    })?;
    let failed = |source: io::Error| PinError::Io {
        path: from.to_owned(),
        source,
    };
    let (own, shape) = into.map(name).map_err(failed)?;
    let mut copied = 0;
    for (key, value) in syscall::dump(data.fd().as_fd(), shape).map_err(failed)? {
        let Some(mut flow) = CtValue::from_bytes(&value) else {
            continue;
        };
        age(&mut flow);
        copied += usize::from(syscall::put_new(own, shape, &key, flow.bytes()).map_err(failed)?);
    }
    Ok(copied)
}

/// Epochs are each agent's own: to this one every approval is an old one.
fn age(flow: &mut CtValue) {
    for side in [0, 1] {
        for leg in [LEG_OUT, LEG_IN] {
            let held = flow.leg(side, leg);
            // Above these are those that no epoch ends.
            if (LEG_NONE + 1..LEG_SERVICE).contains(&held) {
                let defers = u32::from(leg_defers(held)) * LEG_DEFERS;
                flow.set_leg(side, leg, EPOCH_MAX | defers);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use calico_azure_ebpf::abi::{LEG_HOST, LEG_REVOKED, LEG_SERVICE};

    use super::*;

    #[test]
    fn approvals_become_old_ones_and_the_rest_stays() {
        let mut flow = CtValue {
            last_seen: 5,
            legs: [0, 0],
            seen: 0x4040,
            icmp: 0,
            kind: 0,
        };
        flow.set_leg(0, LEG_OUT, 7);
        flow.set_leg(1, LEG_OUT, LEG_HOST);
        flow.set_leg(1, LEG_IN, LEG_REVOKED);
        age(&mut flow);
        assert_eq!(flow.leg(0, LEG_OUT), EPOCH_MAX);
        assert_eq!(flow.leg(0, LEG_IN), LEG_NONE);
        assert_eq!(flow.leg(1, LEG_OUT), LEG_HOST);
        assert_eq!(flow.leg(1, LEG_IN), LEG_REVOKED);
        flow.set_leg(0, LEG_IN, LEG_SERVICE);
        age(&mut flow);
        assert_eq!(flow.leg(0, LEG_IN), LEG_SERVICE);
        flow.set_leg(1, LEG_IN, LEG_DEFERS | 7);
        age(&mut flow);
        assert_eq!(flow.leg(1, LEG_IN), LEG_DEFERS | EPOCH_MAX);
        assert_eq!((flow.last_seen, flow.seen), (5, 0x4040));
    }
}
