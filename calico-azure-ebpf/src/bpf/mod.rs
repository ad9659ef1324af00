//! Binds the engine to the kernel: maps, contexts, events. Only the bins use it.

mod ctx;
mod maps;
mod socket;
mod tables;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::programs::{SkBuffContext, TcContext};

use crate::abi::{Hook, Reason, calls};
#[cfg(feature = "bpf-log")]
use crate::packet::Packet as _;
use crate::verdict::{Outcome, Tables as _, service};
pub use ctx::SkbPacket;
use maps::CALLS;
use socket::SocketPacket;
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

/// As [`run`], where packets leave: what a pod sent to a service is first judged by `service`, which then calls the
/// program that is `back`.
#[inline(always)]
pub fn run_leaving(
    ctx: &TcContext,
    back: u32,
    program: impl FnOnce(&SkbPacket, &KernelTables) -> Outcome,
) -> i32 {
    let packet = SkbPacket::new(ctx);
    if service::is_marked(&packet, &KernelTables) {
        // SAFETY: the context is valid; nothing here needs to be dropped.
        unsafe {
            (*ctx.skb.skb).cb[0] = back;
            CALLS.tail_call(ctx, calls::SERVICE);
        }
        return lost(&packet);
    }
    run(ctx, program)
}

/// A marked packet that leaves by an interface.
#[inline(always)]
pub fn run_service(ctx: &TcContext) -> i32 {
    let packet = SkbPacket::new(ctx);
    let outcome = service::leaving(&packet, &KernelTables);
    match outcome.reason {
        Reason::Hairpin => TC_ACT_UNSPEC,
        reason if reason.passes() => {
            // SAFETY: as in `run_leaving`, which alone calls this program.
            unsafe {
                let back = (*ctx.skb.skb).cb[0];
                CALLS.tail_call(ctx, back);
            }
            lost(&packet)
        }
        _ => TC_ACT_SHOT as i32,
    }
}

/// A call that did not happen: the table of programs is not filled.
#[inline(always)]
fn lost(packet: &SkbPacket) -> i32 {
    KernelTables.record_bare(Hook::Service, packet, Outcome::of(Reason::TableMissing));
    TC_ACT_SHOT as i32
}

/// A packet that a socket of this host is about to get: 1 lets it.
#[inline(always)]
pub fn run_to_host(ctx: &SkBuffContext) -> i32 {
    let packet = SocketPacket::new(ctx);
    if !service::is_marked(&packet, &KernelTables) {
        return 1;
    }
    i32::from(service::leaving(&packet, &KernelTables).reason.passes())
}
