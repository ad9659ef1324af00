//! What answers for a pod, and the first that does: the reference.

use std::net::IpAddr;

use calico_azure_ebpf::abi::{DEFAULT_VXLAN_PORT, Reason};
use calico_azure_ebpf::packet::protocol;
use calico_azure_ebpf::verdict::azure;

use super::cluster::Cluster;
use crate::dataplane::testrun::TestRunError;
use crate::policy::{CompileError, Direction, Probe, RuleRef};

/// What is said of a packet at one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub reason: Reason,
    pub rule: Option<RuleRef>,
    /// Whether a `Log` rule matched on the way.
    pub log: bool,
}

impl Said {
    pub(super) fn bare(reason: Reason) -> Self {
        Self {
            reason,
            rule: None,
            log: false,
        }
    }
}

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    #[error("{0}")]
    Compile(#[from] CompileError),
    #[error("{0}")]
    TestRun(#[from] TestRunError),
    /// About this packet only; the next may well have one.
    #[error("{0}")]
    Packet(String),
}

/// Answers for single pods.
pub trait Engine {
    /// Judges the first packet of a flow by the policy of a pod of the cluster, by its place in it.
    ///
    /// # Errors
    /// [`JudgeError`].
    fn judge(
        &mut self,
        cluster: &Cluster<'_>,
        pod: usize,
        direction: Direction,
        packet: &Probe,
    ) -> Result<Said, JudgeError>;

    /// The next packet belongs to no flow that is known.
    ///
    /// # Errors
    /// [`JudgeError::TestRun`].
    fn forget_flows(&mut self) -> Result<(), JudgeError> {
        Ok(())
    }
}

impl<E: Engine + ?Sized> Engine for Box<E> {
    fn judge(
        &mut self,
        cluster: &Cluster<'_>,
        pod: usize,
        direction: Direction,
        packet: &Probe,
    ) -> Result<Said, JudgeError> {
        (**self).judge(cluster, pod, direction, packet)
    }

    fn forget_flows(&mut self) -> Result<(), JudgeError> {
        (**self).forget_flows()
    }
}

/// Reads the policies rule by rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Engine for Reference {
    fn judge(
        &mut self,
        cluster: &Cluster<'_>,
        pod: usize,
        direction: Direction,
        packet: &Probe,
    ) -> Result<Said, JudgeError> {
        let Some(member) = cluster.member(pod) else {
            return Ok(Said::bare(Reason::NoEndpoint));
        };
        if direction == Direction::Egress && !cluster.owns(pod, packet.own) {
            return Ok(Said::bare(unowned(packet)));
        }
        if let Some(reason) = forbidden(direction, packet) {
            return Ok(Said::bare(reason));
        }
        let (allow, log, rule) = cluster.oracle.decide(member.pod, direction, packet);
        Ok(Said {
            reason: if allow {
                Reason::PolicyAllow
            } else {
                Reason::PolicyDeny
            },
            rule: Some(rule),
            log,
        })
    }
}

/// What becomes of what a pod may not send whatever policy says, unless its node allows that: tunnels, and requests to the
/// wireserver.
pub(super) fn forbidden(direction: Direction, packet: &Probe) -> Option<Reason> {
    if direction == Direction::Ingress {
        return None;
    }
    let vxlan = (protocol::UDP, DEFAULT_VXLAN_PORT);
    if packet.protocol == protocol::IPIP || (packet.protocol, packet.dport) == vxlan {
        return Some(Reason::WorkloadTunnel);
    }
    let IpAddr::V4(peer) = packet.peer else {
        return None;
    };
    let peer = u32::from_ne_bytes(peer.octets());
    azure::guard(0, peer, packet.protocol, Some(packet.dport))
}

/// What becomes of a packet whose source is not the pod's: it may ask for an address, and nothing else.
pub(super) fn unowned(packet: &Probe) -> Reason {
    const UDP: u8 = 17;
    let (source, destination) = (packet.own, packet.peer);
    let broadcast = destination.is_ipv4() && destination == std::net::Ipv4Addr::BROADCAST;
    let asks = source.is_unspecified() && broadcast;
    if asks && (packet.protocol, packet.sport, packet.dport) == (UDP, 68, 67) {
        Reason::AlwaysAllowed
    } else {
        Reason::SpoofedSource
    }
}
