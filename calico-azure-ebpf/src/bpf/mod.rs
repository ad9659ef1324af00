//! Binds the engine to the kernel: maps, contexts, events. Only the bins use it.

mod ctx;
mod maps;
mod tables;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::programs::TcContext;

#[cfg(feature = "bpf-log")]
use crate::packet::Packet as _;
use crate::verdict::Outcome;
pub use ctx::SkbPacket;
pub use tables::KernelTables;

/// Runs one program. A pass is `TC_ACT_UNSPEC` (`TCX_NEXT`), so that programs after ours still run.
#[inline(always)]
pub fn run(ctx: &TcContext, program: impl FnOnce(&SkbPacket, &KernelTables) -> Outcome) -> i32 {
    let packet = SkbPacket::new(ctx);
    let outcome = program(&packet, &KernelTables);
    #[cfg(feature = "bpf-log")]
    {
        let reason = outcome.reason as u8;
        aya_log_ebpf::debug!(
            ctx,
            "ifindex {} len {} reason {} rule {}",
            packet.ifindex(),
            ctx.len(),
            reason,
            outcome.rule
        );
    }
    if outcome.reason.passes() {
        TC_ACT_UNSPEC
    } else {
        TC_ACT_SHOT as i32
    }
}
