//! The loaded programs.

use calico_azure_ebpf::abi::Reason;

use super::cluster::Cluster;
use super::compiled::Compiled;
use super::engine::{Engine, JudgeError, Said};
use crate::dataplane::testrun::Pods;
use crate::policy::{Direction, Probe};

/// The tables in the kernel, under the programs.
pub struct InKernel {
    tables: Compiled,
    pods: Pods,
}

impl InKernel {
    /// Loads the programs and writes the tables. The calling thread moves into a network namespace of its own for good.
    ///
    /// # Errors
    /// Without root, or if the kernel refuses.
    pub fn new(cluster: &Cluster<'_>, object: &[u8]) -> Result<Self, JudgeError> {
        let tables = Compiled::new(cluster)?;
        let pods = Pods::load(object, &tables.desired)?;
        Ok(Self { tables, pods })
    }
}

impl Engine for InKernel {
    fn judge(
        &mut self,
        _cluster: &Cluster<'_>,
        pod: usize,
        direction: Direction,
        packet: &Probe,
    ) -> Result<Said, JudgeError> {
        let Some(ifindex) = self.tables.ifindex(pod) else {
            return Ok(Said::bare(Reason::NoEndpoint));
        };
        if packet.own.is_ipv6() && is_extension(packet.protocol) {
            let number = packet.protocol;
            return Err(JudgeError::Packet(format!(
                "protocol: {number} in IPv6 is an extension header, and no packet can be made that carries it"
            )));
        }
        let seen = self.pods.judge(ifindex, direction, packet)?;
        Ok(Said {
            reason: seen.reason,
            rule: self.tables.rules.get(&seen.rule).cloned(),
            log: seen.log,
        })
    }

    fn forget_flows(&mut self) -> Result<(), JudgeError> {
        Ok(self.pods.forget_flows()?)
    }
}

fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 51 | 60)
}
