//! The programs. Thin on purpose: everything they decide is in the library, which the host tests too.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::macros::{cgroup_skb, classifier};
    use aya_ebpf::programs::{SkBuffContext, TcContext};
    use calico_azure_ebpf::abi::calls;
    use calico_azure_ebpf::bpf::{run, run_leaving, run_service, run_to_host};
    use calico_azure_ebpf::verdict::{fabric, workload};

    #[classifier]
    fn from_workload(ctx: TcContext) -> i32 {
        run(&ctx, |packet, tables| workload::from_workload(packet, tables))
    }

    #[classifier]
    fn to_workload(ctx: TcContext) -> i32 {
        run_leaving(&ctx, calls::TO_WORKLOAD, |packet, tables| {
            workload::to_workload(packet, tables)
        })
    }

    #[classifier]
    fn from_fabric(ctx: TcContext) -> i32 {
        run(&ctx, |packet, tables| fabric::from_fabric(packet, tables))
    }

    #[classifier]
    fn to_fabric(ctx: TcContext) -> i32 {
        run_leaving(&ctx, calls::TO_FABRIC, |packet, tables| {
            fabric::to_fabric(packet, tables)
        })
    }

    #[classifier]
    fn service(ctx: TcContext) -> i32 {
        run_service(&ctx)
    }

    #[cgroup_skb(ingress)]
    fn to_host(ctx: SkBuffContext) -> i32 {
        run_to_host(&ctx)
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
