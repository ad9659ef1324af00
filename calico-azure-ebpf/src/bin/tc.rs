//! The programs. Thin on purpose: everything they decide is in the library, which the host tests too.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::macros::{cgroup_skb, classifier, xdp};
    use aya_ebpf::programs::{SkBuffContext, TcContext, XdpContext};
    use calico_azure_ebpf::abi::{Hook, calls};
    use calico_azure_ebpf::bpf::{
        run, run_at_pod, run_fabric, run_host_service, run_host_socket, run_leaving, run_reset4, run_reset6,
        run_service, run_to_host, run_untracked,
    };
    use calico_azure_ebpf::packet::{V4, V6};
    use calico_azure_ebpf::verdict::{fabric, part};

    #[classifier]
    fn from_workload(ctx: TcContext) -> i32 {
        run_at_pod::<{ part::V4 }>(&ctx, Hook::FromWorkload, Some(calls::FROM_WORKLOAD6))
    }

    #[classifier]
    fn from_workload6(ctx: TcContext) -> i32 {
        run_at_pod::<{ part::V6 }>(&ctx, Hook::FromWorkload, None)
    }

    #[classifier]
    fn to_workload(ctx: TcContext) -> i32 {
        run_leaving(&ctx, calls::TO_WORKLOAD, |ctx| {
            run_at_pod::<{ part::V4 }>(ctx, Hook::ToWorkload, Some(calls::TO_WORKLOAD6))
        })
    }

    #[classifier]
    fn to_workload6(ctx: TcContext) -> i32 {
        run_at_pod::<{ part::V6 }>(&ctx, Hook::ToWorkload, None)
    }

    #[classifier]
    fn from_fabric(ctx: TcContext) -> i32 {
        run_fabric(&ctx, Hook::FromFabric)
    }

    #[classifier]
    fn to_fabric(ctx: TcContext) -> i32 {
        run_leaving(&ctx, calls::TO_FABRIC, |ctx| run_fabric(ctx, Hook::ToFabric))
    }

    #[classifier]
    fn host_in4(ctx: TcContext) -> i32 {
        run(&ctx, |packet, tables| {
            fabric::at_host::<V4, _, _>(packet, tables, Hook::FromFabric)
        })
    }

    #[classifier]
    fn host_in6(ctx: TcContext) -> i32 {
        run(&ctx, |packet, tables| {
            fabric::at_host::<V6, _, _>(packet, tables, Hook::FromFabric)
        })
    }

    #[classifier]
    fn host_out4(ctx: TcContext) -> i32 {
        run(&ctx, |packet, tables| {
            fabric::at_host::<V4, _, _>(packet, tables, Hook::ToFabric)
        })
    }

    #[classifier]
    fn host_out6(ctx: TcContext) -> i32 {
        run(&ctx, |packet, tables| {
            fabric::at_host::<V6, _, _>(packet, tables, Hook::ToFabric)
        })
    }

    #[classifier]
    fn reset4(ctx: TcContext) -> i32 {
        run_reset4(&ctx)
    }

    #[classifier]
    fn reset6(ctx: TcContext) -> i32 {
        run_reset6(&ctx)
    }

    #[classifier]
    fn service(ctx: TcContext) -> i32 {
        run_service::<{ part::V4 }>(&ctx, Some(calls::SERVICE6))
    }

    #[classifier]
    fn service6(ctx: TcContext) -> i32 {
        run_service::<{ part::V6 }>(&ctx, None)
    }

    #[classifier]
    fn host_service4(ctx: TcContext) -> i32 {
        run_host_service::<{ part::V4 }>(&ctx, Some(calls::HOST_SERVICE6))
    }

    #[classifier]
    fn host_service6(ctx: TcContext) -> i32 {
        run_host_service::<{ part::V6 }>(&ctx, None)
    }

    #[cgroup_skb(ingress)]
    fn to_host(ctx: SkBuffContext) -> i32 {
        run_to_host(&ctx)
    }

    #[cgroup_skb(ingress)]
    fn host_socket4(ctx: SkBuffContext) -> i32 {
        run_host_socket::<{ part::V4 }>(&ctx)
    }

    #[cgroup_skb(ingress)]
    fn host_socket6(ctx: SkBuffContext) -> i32 {
        run_host_socket::<{ part::V6 }>(&ctx)
    }

    #[xdp]
    fn untracked(ctx: XdpContext) -> u32 {
        run_untracked(&ctx)
    }

    /// Some helpers are for GPL-compatible programs only; the crate is offered under both licences.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 4] = *b"GPL\0";

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("eBPF programs: built for the kernel by `cargo xtask build`, loaded by `calico-azure agent`");
    std::process::exit(2);
}
