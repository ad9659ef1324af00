//! Programs that benchmarks compare the product with. Built into an object of their own, which nobody ships.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
    use aya_ebpf::btf_maps::lpm_trie::Key;
    use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, ProgramArray};
    use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_redirect};
    use aya_ebpf::macros::{btf_map, classifier, xdp};
    use aya_ebpf::programs::{TcContext, XdpContext};
    use calico_azure_ebpf::abi::{CtKey4, CtKey6};
    use calico_azure_ebpf::yardstick::{Flow, MAX_RULES, Member, PAGE, Rule};

    const PASS: i32 = TC_ACT_UNSPEC;
    const DROP: i32 = TC_ACT_SHOT as i32;

    /// Keys of a conntrack entry's size.
    #[btf_map]
    static KEYS4: HashMap<CtKey4, u64, 65_536> = HashMap::new();
    #[btf_map]
    static KEYS6: HashMap<CtKey6, u64, 65_536> = HashMap::new();
    /// Sources that the minimal filter drops.
    #[btf_map]
    static BLOCKED: HashMap<u32, u32, 65_536> = HashMap::new();
    #[btf_map]
    static RULES: Array<Rule, { MAX_RULES as usize }> = Array::new();
    /// How many rules there are.
    #[btf_map]
    static LENGTH: Array<u32, 1> = Array::new();
    #[btf_map]
    static SETS: LpmTrie<Member, u32, 2_097_152> = LpmTrie::new();
    /// The walk's next page, at index 0.
    #[btf_map]
    static PAGES: ProgramArray<1> = ProgramArray::new();
    /// Interface that generated frames are sent to.
    #[btf_map]
    static TARGET: Array<u32, 1> = Array::new();

    #[classifier]
    fn empty(_ctx: TcContext) -> i32 {
        PASS
    }

    #[classifier]
    fn lookup4(_ctx: TcContext) -> i32 {
        let key = CtKey4 {
            addr: [1, 2],
            port: [3, 4],
            protocol: 6,
        };
        if KEYS4.get_ptr(&key).is_some() { PASS } else { DROP }
    }

    #[classifier]
    fn lookup6(_ctx: TcContext) -> i32 {
        let key = CtKey6 {
            addr: [[1; 4], [2; 4]],
            port: [3, 4],
            protocol: 6,
        };
        if KEYS6.get_ptr(&key).is_some() { PASS } else { DROP }
    }

    #[classifier]
    fn clock(_ctx: TcContext) -> i32 {
        // SAFETY: the helper has no preconditions.
        if unsafe { bpf_ktime_get_ns() } == 0 {
            DROP
        } else {
            PASS
        }
    }

    /// Ethernet, IPv4 and the ports; nothing else is understood.
    #[inline(always)]
    fn parse(start: usize, end: usize) -> Option<Flow> {
        if start + 34 > end {
            return None;
        }
        let halves = start as *const u16;
        // SAFETY: the first 34 bytes lie before the end; frames begin at even addresses.
        let (ethertype, word, first, low, high) = unsafe {
            (
                halves.add(6).read(),
                halves.add(11).read(),
                (start as *const u8).add(14).read(),
                halves.add(13).read(),
                halves.add(14).read(),
            )
        };
        if u16::from_be(ethertype) != 0x0800 || first >> 4 != 4 {
            return None;
        }
        let ports = start + 14 + usize::from(first & 15) * 4;
        if ports + 4 > end {
            return None;
        }
        // SAFETY: the four bytes lie before the end.
        let dport = unsafe { (ports as *const u16).add(1).read() };
        Some(Flow {
            src: u32::from(low) | u32::from(high) << 16,
            dport: u16::from_be(dport),
            protocol: (u16::from_be(word) & 0xff) as u8,
        })
    }

    /// Begins the walk. What was read goes along in the packet's scratch space.
    #[classifier]
    fn walk(mut ctx: TcContext) -> i32 {
        let Some(flow) = parse(ctx.data(), ctx.data_end()) else {
            return DROP;
        };
        let cb = ctx.skb.cb_mut();
        cb[1] = flow.src;
        cb[2] = u32::from(flow.dport) | u32::from(flow.protocol) << 16;
        page(&mut ctx, &flow, 0)
    }

    /// Goes on where the page before ended.
    #[classifier]
    fn walk_on(mut ctx: TcContext) -> i32 {
        let cb = ctx.skb.cb();
        let flow = Flow {
            src: cb[1],
            dport: cb[2] as u16,
            protocol: (cb[2] >> 16) as u8,
        };
        let first = cb[0];
        page(&mut ctx, &flow, first)
    }

    #[inline(always)]
    fn page(ctx: &mut TcContext, flow: &Flow, first: u32) -> i32 {
        let Some(&length) = LENGTH.get(0) else {
            return DROP;
        };
        let mut i = 0;
        while i < PAGE {
            let index = first + i;
            i += 1;
            if index >= length {
                return DROP;
            }
            let Some(rule) = RULES.get(index) else {
                return DROP;
            };
            if !rule.matches(flow) {
                continue;
            }
            if rule.set != 0 {
                let member = Member {
                    set: rule.set,
                    addr: flow.src,
                };
                if SETS.get(&Key::new(64, member)).is_none() {
                    continue;
                }
            }
            return if rule.allow == 1 { PASS } else { DROP };
        }
        ctx.skb.cb_mut()[0] = first + PAGE;
        // SAFETY: the only entry is `walk_on`.
        unsafe { PAGES.tail_call(ctx, 0) };
        // Too many rules.
        DROP
    }

    /// Parses to the ports, makes one lookup and drops.
    #[inline(always)]
    fn minimal(start: usize, end: usize) -> bool {
        match parse(start, end) {
            Some(flow) => BLOCKED.get_ptr(&flow.src).is_some(),
            None => false,
        }
    }

    #[classifier]
    fn minimal_tc(ctx: TcContext) -> i32 {
        if minimal(ctx.data(), ctx.data_end()) {
            DROP
        } else {
            PASS
        }
    }

    #[xdp]
    fn minimal_xdp(ctx: XdpContext) -> u32 {
        if minimal(ctx.data(), ctx.data_end()) {
            xdp_action::XDP_DROP
        } else {
            xdp_action::XDP_PASS
        }
    }

    /// Sends what it is run on to an interface: with live frames, a packet generator.
    #[xdp]
    fn generate(_ctx: XdpContext) -> u32 {
        match TARGET.get(0) {
            // SAFETY: the helper has no preconditions.
            Some(&ifindex) => (unsafe { bpf_redirect(ifindex, 0) }) as u32,
            None => xdp_action::XDP_ABORTED,
        }
    }

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
    eprintln!("eBPF programs: built for the kernel by `cargo xtask bench`");
    std::process::exit(2);
}
