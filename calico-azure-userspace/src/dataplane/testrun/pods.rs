//! Any number of pods, judged one after the other behind one interface.
//!
//! A program finds its pod by interface, and interfaces cost. So one pod at a time is plugged in behind the loopback
//! interface of a network namespace that holds nothing else: its two policy sets and its addresses, written as the
//! planner writes them. All other tables are there as on any node.

use std::collections::BTreeMap;
use std::io;

use calico_azure_ebpf::abi::{Endpoint, OwnerKey4, OwnerKey6, Pod as _, Reason, word};

use super::frame::Frame;
use super::{At, Returned, Runner, TestRunError, settings};
use crate::dataplane::io::{MapIo as _, Table};
use crate::dataplane::kernel::{KernelError, Sizes, is_root};
use crate::policy::{Desired, Direction, Probe};

/// The loopback interface's index, in every network namespace.
const LOOPBACK: u32 = 1;
/// An owner is one in both epochs.
const OWNED: u32 = 3;

/// What a program said of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub reason: Reason,
    /// Id of the deciding rule; 0 if none decided.
    pub rule: u32,
    /// Whether a `Log` rule matched on the way.
    pub log: bool,
}

/// What is written for a pod.
#[derive(Debug, Default)]
struct Plug {
    egress: u32,
    ingress: u32,
    /// Keys of the owner tables, for the loopback interface.
    owners: Vec<(Table, Vec<u8>)>,
}

/// The programs, the tables of many pods, and a network namespace of their own.
pub struct Pods {
    runner: Runner,
    /// By the interface that the tables have the pod behind.
    plugs: BTreeMap<u32, Plug>,
    plugged: Option<u32>,
    /// A flow may have been entered.
    flows: bool,
}

impl Pods {
    /// Loads everything. The calling thread moves into a new network namespace for good, which ends with it.
    ///
    /// # Errors
    /// Without root, or if the kernel refuses.
    pub fn load(object: &[u8], desired: &Desired) -> Result<Self, TestRunError> {
        if !is_root() {
            return Err(KernelError::NotPermitted.into());
        }
        // SAFETY: takes a plain number; only this thread's network changes.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(TestRunError::Namespace(io::Error::last_os_error()));
        }
        let mut runner = Runner::load(object, sizes(desired))?;
        let Desired {
            endpoints,
            owners4,
            owners6,
            ..
        } = desired;
        let mut plugs: BTreeMap<u32, Plug> = endpoints
            .iter()
            .map(|(ifindex, endpoint)| {
                let plug = Plug {
                    egress: endpoint.egress,
                    ingress: endpoint.ingress,
                    owners: Vec::new(),
                };
                (*ifindex, plug)
            })
            .collect();
        let mut own = |ifindex, table, key: Vec<u8>| {
            plugs.entry(ifindex).or_default().owners.push((table, key));
        };
        for &OwnerKey4 { ifindex, addr } in owners4.keys() {
            let key = OwnerKey4 {
                ifindex: LOOPBACK,
                addr,
            };
            own(ifindex, Table::Owners4, key.bytes().to_vec());
        }
        for &OwnerKey6 { ifindex, addr } in owners6.keys() {
            let key = OwnerKey6 {
                ifindex: LOOPBACK,
                addr,
            };
            own(ifindex, Table::Owners6, key.bytes().to_vec());
        }
        let unplugged = Desired {
            endpoints: BTreeMap::new(),
            owners4: BTreeMap::new(),
            owners6: BTreeMap::new(),
            ..desired.of_pods_alone()
        };
        runner.dataplane.apply(&unplugged, settings())?;
        Ok(Self {
            runner,
            plugs,
            plugged: None,
            flows: false,
        })
    }

    /// Runs the program of the direction on the first packet of a flow, for the pod that the tables have behind
    /// `ifindex`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn judge(
        &mut self,
        ifindex: u32,
        direction: Direction,
        packet: &Probe,
    ) -> Result<Seen, TestRunError> {
        self.plug(ifindex).map_err(TestRunError::Maps)?;
        let (at, src, dst) = match direction {
            Direction::Egress => (At::from_workload(LOOPBACK), packet.own, packet.peer),
            Direction::Ingress => (At::to_workload(LOOPBACK), packet.peer, packet.own),
        };
        let frame = Frame::new(src, dst, packet.protocol, packet.sport, packet.dport).bytes();
        let (returned, event) = self.runner.observe(at, &frame)?;
        self.flows |= returned == Returned::Next;
        let seen = event.and_then(|event| {
            Some(Seen {
                reason: Reason::try_from(event.reason).ok()?,
                rule: event.rule,
                log: event.log != 0,
            })
        });
        match seen {
            Some(seen) if seen.reason.passes() == (returned == Returned::Next) => Ok(seen),
            // What passes without a question is counted, and not recorded.
            _ => Ok(Seen {
                reason: self.counted(at, &frame)?,
                rule: 0,
                log: false,
            }),
        }
    }

    /// Forgets every flow, so that the next packet begins one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget_flows(&mut self) -> Result<(), TestRunError> {
        if std::mem::take(&mut self.flows) {
            let maps = self.runner.dataplane.io().maps();
            maps.forget_flows().map_err(TestRunError::Maps)?;
        }
        Ok(())
    }

    /// The reason whose counter the packet moves.
    fn counted(&mut self, at: At, frame: &[u8]) -> Result<Reason, TestRunError> {
        let counters = self.runner.dataplane.io().maps().counters();
        let counters = counters.map_err(TestRunError::Maps)?;
        let before = counters.totals().map_err(TestRunError::Maps)?;
        self.runner.run(at, frame)?;
        let after = counters.totals().map_err(TestRunError::Maps)?;
        let mut moved = after
            .into_iter()
            .filter(|(place, count)| before.get(place) != Some(count));
        let found = moved.next().map(|((_, reason), _)| reason);
        found.ok_or(TestRunError::Silent { program: at.program })
    }

    /// Puts the pod behind the loopback interface.
    fn plug(&mut self, ifindex: u32) -> io::Result<()> {
        if self.plugged == Some(ifindex) {
            return Ok(());
        }
        let Self {
            runner,
            plugs,
            plugged,
            ..
        } = self;
        let io = runner.dataplane.io();
        let old = plugged.take().and_then(|old| plugs.get(&old));
        for (table, key) in old.into_iter().flat_map(|plug| &plug.owners) {
            io.delete(*table, key)?;
        }
        let Some(plug) = plugs.get(&ifindex) else {
            return io.delete(Table::Endpoints, LOOPBACK.bytes());
        };
        let check = word::check24(LOOPBACK);
        let endpoint = Endpoint {
            egress: word::slots(plug.egress, plug.egress, check),
            ingress: word::slots(plug.ingress, plug.ingress, check),
            mark: word::mark(LOOPBACK, 1),
        };
        io.put(Table::Endpoints, LOOPBACK.bytes(), endpoint.bytes())?;
        for (table, key) in &plug.owners {
            io.put(*table, key, OWNED.bytes())?;
        }
        *plugged = Some(ifindex);
        Ok(())
    }
}

/// Room for the tables and a few flows; what is allocated in advance takes time.
fn sizes(desired: &Desired) -> Sizes {
    let Desired {
        class4,
        class6,
        cidr4,
        cidr6,
        policy,
        ports,
        ..
    } = desired;
    let lengths = [
        class4.len(),
        class6.len(),
        cidr4.len(),
        cidr6.len(),
        policy.len(),
        ports.len(),
    ];
    // Prefixes that shadow others may be added to those desired.
    let most = lengths.into_iter().max().unwrap_or_default().saturating_mul(2);
    Sizes {
        conntrack: 1024,
        half_open: 1024,
        tables: u32::try_from(most).unwrap_or(u32::MAX).max(1024),
    }
}
