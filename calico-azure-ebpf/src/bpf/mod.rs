//! Binds the engine to the kernel: maps, contexts, events. Only the bins use it.

/// Functions that read extension headers and transport headers of one kind of packet. Their symbols are global, so the verifier looks at each once,
/// with nothing known of `from`, and takes its answer to be any.
macro_rules! read_apart {
    ($packet:ident { $field:ident: $context:ty }, $headers:ident, $transport:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $headers($field: *mut $context, from: u64) -> u64 {
            crate::packet::headers::follow(&$packet { $field }, from)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $transport($field: *mut $context, from: u64) -> u64 {
            crate::packet::l4::answer(&$packet { $field }, from)
        }
    };
}

/// As [`read_apart`], functions that tell what is at the other end of a flow.
macro_rules! peer_apart {
    ($packet:ident { $field:ident: $context:ty }, $v4:ident, $v6:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $v4($field: *mut $context, peer: u64, asked: u64) -> u64 {
            use crate::packet::V4;
            crate::verdict::peer::peer::<V4, _, _>(
                &$packet { $field },
                &super::KernelTables,
                peer as u32,
                asked,
            )
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $v6($field: *mut $context, upper: u64, lower: u64, asked: u64) -> u64 {
            use crate::packet::V6;
            let peer = [
                upper as u32,
                (upper >> 32) as u32,
                lower as u32,
                (lower >> 32) as u32,
            ];
            crate::verdict::peer::peer::<V6, _, _>(&$packet { $field }, &super::KernelTables, peer, asked)
        }
    };
}

mod ctx;
mod maps;
mod reset;
mod socket;
mod tables;
mod xdp;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::programs::{SkBuffContext, TcContext, XdpContext};

use crate::abi::{Hook, Reason, calls, socket_calls};
use crate::packet::{Packet, ethertype};
use crate::verdict::{Outcome, Tables as _, behind, fabric, service, workload};
pub use ctx::SkbPacket;
use maps::{CALLS, SOCKET_CALLS};
pub use reset::{run_reset4, run_reset6};
use socket::SocketPacket;
pub use tables::KernelTables;
use xdp::XdpPacket;

/// Runs one program. A pass is `TC_ACT_UNSPEC` (`TCX_NEXT`), so that programs after ours still run.
#[inline(always)]
pub fn run(ctx: &TcContext, program: impl FnOnce(&SkbPacket, &KernelTables) -> Outcome) -> i32 {
    let packet = SkbPacket::new(ctx);
    let outcome = program(&packet, &KernelTables);
    code(ctx, &packet, outcome)
}

#[inline(always)]
#[cfg_attr(
    not(feature = "bpf-log"),
    expect(unused_variables, reason = "said in the log only")
)]
fn code(ctx: &TcContext, packet: &SkbPacket, outcome: Outcome) -> i32 {
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

/// The programs on a pod's interface, for one family; the other one is for the program `next`, if there is another.
#[inline(always)]
pub fn run_at_pod<const PART: u8>(ctx: &TcContext, hook: Hook, next: Option<u32>) -> i32 {
    run(ctx, |packet, tables| {
        workload::at_pod::<_, _, PART>(packet, tables, hook, || hand_over(ctx, packet, hook, next))
    })
}

/// Calls another program. Comes back only if there is none.
#[inline(always)]
fn hand_over(ctx: &TcContext, packet: &SkbPacket, hook: Hook, next: Option<u32>) -> Outcome {
    if let Some(next) = next {
        // SAFETY: the context is valid; nothing here needs to be dropped.
        unsafe { CALLS.tail_call(ctx, next) };
    }
    lost(hook, packet)
}

/// Where packets leave: what a pod sent to a service is first judged by `service`, and what came in for one by a host endpoint's
/// interface by `host_service4` or `host_service6`; these then call the program that is `back`. The rest is for `program`.
#[inline(always)]
pub fn run_leaving(ctx: &TcContext, back: u32, program: impl FnOnce(&TcContext) -> i32) -> i32 {
    let packet = SkbPacket::new(ctx);
    if service::is_marked(&packet, &KernelTables) {
        // SAFETY: the context is valid; nothing here needs to be dropped.
        unsafe {
            (*ctx.skb.skb).cb[0] = back;
            if behind::is_for(&packet, &KernelTables) {
                CALLS.tail_call(ctx, calls::HOST_SERVICE4);
            } else {
                CALLS.tail_call(ctx, calls::SERVICE);
            }
        }
        lost(Hook::Service, &packet);
        return TC_ACT_SHOT as i32;
    }
    program(ctx)
}

/// As [`run`], on the fabric interface: the host endpoint's policy is asked by programs of its own.
#[inline(always)]
pub fn run_fabric(ctx: &TcContext, hook: Hook) -> i32 {
    let (host4, host6) = if matches!(hook, Hook::ToFabric) {
        (calls::HOST_OUT4, calls::HOST_OUT6)
    } else {
        (calls::HOST_IN4, calls::HOST_IN6)
    };
    let packet = SkbPacket::new(ctx);
    // No closure: only programs themselves may call others.
    let outcome = match fabric::validate(&packet, &KernelTables, hook) {
        fabric::Next::Done(outcome) => {
            if matches!(outcome.reason, Reason::NoSuchWorkload) {
                let reset = if packet.ethertype() == ethertype::IPV4 {
                    calls::RESET4
                } else {
                    calls::RESET6
                };
                // SAFETY: the context is valid; nothing here needs to be dropped. Without the program there is no answer.
                unsafe { CALLS.tail_call(ctx, reset) };
            }
            outcome
        }
        fabric::Next::Host4 => hand_over(ctx, &packet, hook, Some(host4)),
        fabric::Next::Host6 => hand_over(ctx, &packet, hook, Some(host6)),
    };
    code(ctx, &packet, outcome)
}

/// A marked packet that leaves by an interface.
#[inline(always)]
pub fn run_service<const PART: u8>(ctx: &TcContext, next: Option<u32>) -> i32 {
    let packet = SkbPacket::new(ctx);
    let outcome = service::leaving_in::<_, _, PART>(&packet, &KernelTables, || {
        hand_over(ctx, &packet, Hook::Service, next)
    });
    match outcome.reason {
        Reason::Hairpin => TC_ACT_UNSPEC,
        _ => call_back(ctx, &packet, outcome),
    }
}

/// As [`run_service`], for what came in by a host endpoint's interface.
#[inline(always)]
pub fn run_host_service<const PART: u8>(ctx: &TcContext, next: Option<u32>) -> i32 {
    let packet = SkbPacket::new(ctx);
    let outcome = behind::leaving_in::<_, _, PART>(&packet, &KernelTables, || {
        hand_over(ctx, &packet, Hook::Service, next)
    });
    call_back(ctx, &packet, outcome)
}

/// What passes is for the program that it came from.
#[inline(always)]
fn call_back(ctx: &TcContext, packet: &SkbPacket, outcome: Outcome) -> i32 {
    if outcome.reason.passes() {
        // SAFETY: as in `run_leaving`, which alone calls these programs.
        unsafe {
            let back = (*ctx.skb.skb).cb[0];
            CALLS.tail_call(ctx, back);
        }
        lost(Hook::Service, packet);
    }
    TC_ACT_SHOT as i32
}

/// A call that did not happen: the table of programs is not filled.
#[inline(always)]
fn lost<P: Packet>(hook: Hook, packet: &P) -> Outcome {
    let outcome = Outcome::of(Reason::TableMissing);
    KernelTables.record_bare(hook, packet, outcome);
    outcome
}

/// A packet that a socket of this host is about to get: 1 lets it.
#[inline(always)]
pub fn run_to_host(ctx: &SkBuffContext) -> i32 {
    let packet = SocketPacket::new(ctx);
    if !service::is_marked(&packet, &KernelTables) {
        return 1;
    }
    if behind::is_for(&packet, &KernelTables) {
        let program = if packet.ethertype() == ethertype::IPV4 {
            socket_calls::HOST_SOCKET4
        } else {
            socket_calls::HOST_SOCKET6
        };
        // SAFETY: the context is valid; nothing here needs to be dropped.
        unsafe { SOCKET_CALLS.tail_call(ctx, program) };
        lost(Hook::Service, &packet);
        return 0;
    }
    i32::from(service::leaving(&packet, &KernelTables).reason.passes())
}

/// One that came in by a host endpoint's interface, for a service.
#[inline(always)]
pub fn run_host_socket<const PART: u8>(ctx: &SkBuffContext) -> i32 {
    let packet = SocketPacket::new(ctx);
    // `to_host` has told the families apart.
    let outcome = behind::leaving_in::<_, _, PART>(&packet, &KernelTables, || lost(Hook::Service, &packet));
    i32::from(outcome.reason.passes())
}

/// A frame that the fabric interface's driver has just received.
#[inline(always)]
pub fn run_untracked(ctx: &XdpContext) -> u32 {
    if fabric::untracked(&XdpPacket::new(ctx), &KernelTables)
        .reason
        .passes()
    {
        xdp_action::XDP_PASS
    } else {
        xdp_action::XDP_DROP
    }
}
