//! The compiled tables of all pods.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use calico_azure_ebpf::abi::{OwnerKey4, OwnerKey6, Reason};

use super::cluster::Cluster;
use super::engine::{Engine, JudgeError, Said, forbidden, unowned};
use crate::policy::{Compiler, Desired, Direction, Probe, RuleRef, lookup, wire};

/// Most peers whose class is remembered.
const REMEMBERED: usize = 1 << 20;

/// The tables, as if all pods were on one node.
#[derive(Debug, Default)]
pub struct Compiled {
    pub(super) desired: Desired,
    pub(super) rules: BTreeMap<u32, RuleRef>,
    /// By place in the cluster.
    ifindexes: Vec<Option<u32>>,
    classes: HashMap<IpAddr, u32>,
}

impl Compiled {
    /// Compiles the cluster.
    ///
    /// # Errors
    /// If there are more distinct policies, selectors or CIDRs than the tables can tell apart.
    pub fn new(cluster: &Cluster<'_>) -> Result<Self, JudgeError> {
        let output = Compiler::default().compile(&cluster.on_one_node())?;
        let mut ifindexes = Vec::new();
        for (ifindex, endpoint) in &output.desired.endpoints {
            let Some(place) = cluster.named(&endpoint.pod) else {
                continue;
            };
            if ifindexes.len() <= place {
                ifindexes.resize(place + 1, None);
            }
            if let Some(entry) = ifindexes.get_mut(place) {
                *entry = Some(*ifindex);
            }
        }
        Ok(Self {
            desired: output.desired,
            rules: output.rules,
            ifindexes,
            classes: HashMap::new(),
        })
    }

    pub(super) fn ifindex(&self, pod: usize) -> Option<u32> {
        self.ifindexes.get(pod).copied().flatten()
    }

    /// What the tables hold on the way to a pod's decision.
    #[must_use]
    pub fn look_up(&mut self, ifindex: u32, direction: Direction, packet: &Probe) -> lookup::Compiled {
        let class = if let Some(class) = self.classes.get(&packet.peer) {
            *class
        } else {
            if self.classes.len() == REMEMBERED {
                self.classes.clear();
            }
            let class = lookup::class_of(&self.desired, packet.peer);
            self.classes.insert(packet.peer, class);
            class
        };
        lookup::verdict_of_class(&self.desired, ifindex, direction, packet, class)
    }

    fn owns(&self, ifindex: u32, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.desired.owners4.contains_key(&OwnerKey4 {
                ifindex,
                addr: wire::addr4(address),
            }),
            IpAddr::V6(address) => self.desired.owners6.contains_key(&OwnerKey6 {
                ifindex,
                addr: wire::addr6(address),
            }),
        }
    }
}

impl Engine for Compiled {
    fn judge(
        &mut self,
        _cluster: &Cluster<'_>,
        pod: usize,
        direction: Direction,
        packet: &Probe,
    ) -> Result<Said, JudgeError> {
        let Some(ifindex) = self.ifindex(pod) else {
            return Ok(Said::bare(Reason::NoEndpoint));
        };
        if direction == Direction::Egress && !self.owns(ifindex, packet.own) {
            return Ok(Said::bare(unowned(packet)));
        }
        if let Some(reason) = forbidden(direction, packet) {
            return Ok(Said::bare(reason));
        }
        let found = self.look_up(ifindex, direction, packet);
        Ok(Said {
            reason: found.reason,
            rule: self.rules.get(&found.rule).cloned(),
            log: found.log,
        })
    }
}
