//! The engine's tables over eBPF maps.

use core::ptr;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};

use super::ctx::opaque;
use super::maps::{
    BUDGET, CIDR4, CIDR6, CLASS4, CLASS6, CONFIG, CT_EST4, CT_EST6, CT_HALF4, CT_HALF6, DENIED, DROPS, EARLY,
    ENDPOINTS, EVENTS, FRAGS4, FRAGS6, HOSTS, LINKS, MARKS, OWNERS4, OWNERS6, POLICY, PORTS, ROUTES4,
    ROUTES6, SERVICES4, SERVICES6, TOTALS,
};
use crate::abi::{
    Budget, CONFIG_LOG_ALLOWED, Config, CounterKey, CounterValue, CtKey4, CtKey6, CtValue, Denied, EARLY_LEN,
    Event, FragKey4, FragKey6, FragValue, HOST_SETS, Hook, LEG_OUT, OwnerKey4, OwnerKey6, PolicyKey, PortKey,
    RECORD_WINDOW, Reason, ServiceKey4, ServiceKey6, TOTALS_LOST_EVENTS,
};
use crate::packet::{Family, Network, Packet, Transport, V4, V6};
use crate::verdict::{CtTable, FamilyTables, Outcome, Tables};

/// The maps.
pub struct KernelTables;

/// One aligned word, read once: the compiler may not read it again after userspace changed it.
#[inline(always)]
fn once<T: Copy>(pointer: *const T) -> T {
    // SAFETY: a map lookup returned the pointer; the element's memory stays readable while the program runs.
    unsafe { ptr::read_volatile(pointer) }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        let configs = CONFIG.get_ptr(0)?;
        // SAFETY: projects to a field of a live map value.
        let live = once(unsafe { &raw const (*configs).live });
        // SAFETY: one of the two. Userspace writes it again only when no program has it any more.
        Some(unsafe {
            &*(&raw const (*configs).of)
                .cast::<Config>()
                .add((live & 1) as usize)
        })
    }

    #[inline(always)]
    fn opaque(value: u64) -> u64 {
        opaque(value)
    }

    #[inline(always)]
    fn opaque_outcome(outcome: Outcome) -> Outcome {
        let mut slot = outcome;
        let slot = &raw mut slot;
        // SAFETY: a valid outcome is written and read back, in parts that the verifier does not follow.
        unsafe {
            slot.write_volatile(outcome);
            slot.read_volatile()
        }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // Reading the clock costs as much as a map lookup; jiffies are a word in memory (inlined since 5.6), and timeouts are seconds.
        clock(CONFIG.get(0).map_or(0, |configs| configs.tick))
    }

    #[inline(always)]
    fn endpoint(&self, ifindex: u32, leg: u32) -> Option<u64> {
        let endpoint = ENDPOINTS.get_ptr(&ifindex)?;
        // SAFETY: projects to a field of a live map value.
        let word = unsafe {
            if leg == LEG_OUT {
                &raw const (*endpoint).egress
            } else {
                &raw const (*endpoint).ingress
            }
        };
        Some(once(word))
    }

    #[inline(always)]
    fn host(&self, ifindex: u32, stage: usize) -> Option<u64> {
        let host = HOSTS.get_ptr(&ifindex)?;
        // The compiler knows that it is small, and would leave the check out; verifiers before 6.2 do not.
        let stage = opaque(stage as u64) as usize;
        if stage >= HOST_SETS {
            return None;
        }
        // SAFETY: projects to an element of a live map value; the index was checked.
        Some(once(unsafe {
            (&raw const (*host).sets).cast::<u64>().add(stage)
        }))
    }

    #[inline(always)]
    fn link(&self, ifindex: u32) -> bool {
        LINKS.get_ptr(&ifindex).is_some()
    }

    #[inline(always)]
    fn endpoint_mark(&self, ifindex: u32) -> Option<u64> {
        let endpoint = ENDPOINTS.get_ptr(&ifindex)?;
        // SAFETY: projects to a field of a live map value.
        Some(once(unsafe { &raw const (*endpoint).mark }))
    }

    #[inline(always)]
    fn marked(&self, mark: u32) -> Option<u64> {
        MARKS.get_ptr(&mark).map(once)
    }

    #[inline(always)]
    fn policy(&self, key: &PolicyKey) -> Option<u64> {
        POLICY.get_ptr(key).map(once)
    }

    #[inline(always)]
    fn port(&self, key: &PortKey) -> Option<u64> {
        PORTS.get_ptr(key).map(once)
    }

    #[inline(always)]
    fn denied(&self, asked: &Denied) -> Option<(u32, bool)> {
        let denied = DENIED.get_ptr(asked.place())?;
        // SAFETY: this CPU's copy of a live map value; only the program that this is part of writes it, which no other run interrupts.
        let denied = unsafe { &*denied };
        denied.is_same(asked).then_some((denied.rule, denied.log != 0))
    }

    #[inline(always)]
    fn counts_denied<P: Packet>(&self, packet: &P, config: &Config) -> bool {
        let limit = config.records;
        let Some(budget) = BUDGET.get_ptr(0) else {
            return false;
        };
        // SAFETY: this CPU's copy of a live map value.
        let budget = unsafe { &*budget };
        if limit == 0 || budget.used < limit || budget.window != window(clock(config.tick)) {
            return false;
        }
        let ifindex = packet.ifindex();
        let Some(early) = EARLY.get_ptr_mut(ifindex % EARLY_LEN) else {
            return false;
        };
        // SAFETY: as above; only this program writes it, which no other run interrupts.
        let early = unsafe { &mut *early };
        if early.ifindex != ifindex {
            if early.ifindex != 0 {
                return false;
            }
            early.ifindex = ifindex;
        }
        early.packets = early.packets.wrapping_add(1);
        early.bytes = early.bytes.wrapping_add(u64::from(packet.len()));
        true
    }

    #[inline(always)]
    fn set_denied(&self, asked: &Denied, rule: u32, log: bool) {
        if let Some(place) = DENIED.get_ptr_mut(asked.place()) {
            // SAFETY: as above.
            let place = unsafe { &mut *place };
            *place = *asked;
            (place.rule, place.log) = (rule, u32::from(log));
        }
    }

    // As `record` below.
    #[inline(never)]
    fn record_bare<P: Packet>(&self, hook: Hook, packet: &P, outcome: Outcome) {
        count(hook, packet, outcome);
        if !outcome.reason.passes() {
            emit(hook, packet, outcome, [0; 4], [0; 4], 0, &Transport::default());
        }
    }
}

macro_rules! family_tables {
    ($family:ty, $owner:ident, $owners:ident, $service:ident, $services:ident, $class:ident, $cidr:ident, $routes:ident, $peer:ident, $est:ident, $half:ident,
     $frags:ident, $ctkey:ty, $fragkey:ty, $bits:literal) => {
        impl FamilyTables<$family> for KernelTables {
            #[inline(always)]
            fn owns(&self, ifindex: u32, addr: <$family as Family>::Addr) -> u32 {
                $owners.get_ptr(&$owner { ifindex, addr }).map_or(0, once)
            }

            #[inline(always)]
            fn service(&self, addr: <$family as Family>::Addr, port: u16, protocol: u8) -> u32 {
                let protocol = u16::from(protocol);
                $services
                    .get_ptr(&$service {
                        addr,
                        port,
                        protocol,
                    })
                    .map_or(0, once)
            }

            #[inline(always)]
            fn peer<P: Packet>(&self, packet: &P, peer: <$family as Family>::Addr, asked: u64) -> u64 {
                packet.$peer(peer, asked)
            }

            #[inline(always)]
            fn class(&self, addr: <$family as Family>::Addr) -> Option<u64> {
                $class.get_ptr(&addr).map(once)
            }

            #[inline(always)]
            fn cidr(&self, addr: <$family as Family>::Addr, slot: usize) -> u32 {
                $cidr
                    .get(&Key::new($bits, addr))
                    .map_or(0, |class| class.slots[slot & 1])
            }

            #[inline(always)]
            fn route(&self, addr: <$family as Family>::Addr) -> u32 {
                $routes
                    .get(&Key::new($bits, addr))
                    .map_or(0, |bits| once(bits))
            }

            #[inline(always)]
            fn ct_with<R>(
                &self,
                table: CtTable,
                key: &$ctkey,
                f: impl FnOnce(&mut CtValue) -> R,
            ) -> Option<R> {
                let entry = match table {
                    CtTable::Established => $est.get_ptr_mut(key),
                    CtTable::HalfOpen => $half.get_ptr_mut(key),
                }?;
                // SAFETY: a live map value; concurrent writers only lose a flag or a refresh, which the next packet
                // repairs, and every field is valid with any bits.
                Some(f(unsafe { &mut *entry }))
            }

            #[inline(always)]
            fn ct_insert(&self, table: CtTable, key: &$ctkey, value: &CtValue) -> bool {
                match table {
                    CtTable::Established => $est.insert(key, value, 0).is_ok(),
                    CtTable::HalfOpen => $half.insert(key, value, 0).is_ok(),
                }
            }

            #[inline(always)]
            fn ct_remove(&self, table: CtTable, key: &$ctkey) {
                let _gone = match table {
                    CtTable::Established => $est.remove(key),
                    CtTable::HalfOpen => $half.remove(key),
                };
            }

            #[inline(always)]
            fn frag(&self, key: &$fragkey) -> Option<FragValue> {
                let value = $frags.get_ptr(key)?;
                // SAFETY: projects to fields of a live map value.
                let (word, seen) = unsafe { (&raw const (*value).word, &raw const (*value).seen) };
                Some(FragValue {
                    word: once(word),
                    seen: once(seen),
                })
            }

            #[inline(always)]
            fn set_frag(&self, key: &$fragkey, value: &FragValue) {
                // A full table only costs the later fragments, which then drop with their own reason.
                let _full = $frags.insert(key, value, 0);
            }

            // A function of its own, so that it needs no room on its caller's stack.
            #[inline(never)]
            fn record<P: Packet>(
                &self,
                hook: Hook,
                packet: &P,
                network: &Network<$family>,
                transport: &Transport,
                outcome: Outcome,
            ) {
                count(hook, packet, outcome);
                if worth_an_event(outcome) {
                    let (src, dst) = (<$family>::wide(network.src), <$family>::wide(network.dst));
                    emit(hook, packet, outcome, src, dst, network.protocol, transport);
                }
            }
        }
    };
}

family_tables!(
    V4,
    OwnerKey4,
    OWNERS4,
    ServiceKey4,
    SERVICES4,
    CLASS4,
    CIDR4,
    ROUTES4,
    peer4,
    CT_EST4,
    CT_HALF4,
    FRAGS4,
    CtKey4,
    FragKey4,
    32
);
family_tables!(
    V6,
    OwnerKey6,
    OWNERS6,
    ServiceKey6,
    SERVICES6,
    CLASS6,
    CIDR6,
    ROUTES6,
    peer6,
    CT_EST6,
    CT_HALF6,
    FRAGS6,
    CtKey6,
    FragKey6,
    128
);

#[inline(always)]
fn worth_an_event(outcome: Outcome) -> bool {
    if !outcome.reason.passes() || outcome.log {
        return true;
    }
    matches!(outcome.reason, Reason::PolicyAllow)
        && KernelTables
            .config()
            .is_some_and(|config| config.flags & CONFIG_LOG_ALLOWED != 0)
}

#[inline(always)]
fn add(counter: *mut CounterValue, bytes: u64) {
    // SAFETY: this CPU's copy of a live map value; nothing else writes it while a TC program runs.
    let counter = unsafe { &mut *counter };
    counter.packets = counter.packets.wrapping_add(1);
    counter.bytes = counter.bytes.wrapping_add(bytes);
}

#[inline(always)]
fn count<P: Packet>(hook: Hook, packet: &P, outcome: Outcome) {
    let bytes = u64::from(packet.len());
    if let Some(total) = TOTALS.get_ptr_mut(hook as u32 * 64 + outcome.reason as u32) {
        add(total, bytes);
    }
    if !outcome.reason.passes() {
        let key = CounterKey {
            ifindex: packet.ifindex(),
            hook: hook as u16,
            reason: u16::from(outcome.reason as u8),
        };
        if let Some(counter) = DROPS.get_ptr_mut(&key) {
            add(counter, bytes);
        } else {
            // The totals above count even when this table is full.
            let _full = DROPS.insert(&key, &CounterValue { packets: 1, bytes }, 0);
        }
    }
}

/// Nanoseconds of the kernel's cheapest clock.
#[inline(always)]
fn clock(tick: u32) -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() }.wrapping_mul(u64::from(tick))
}

/// Which window of records this is.
#[inline(always)]
fn window(now: u64) -> u32 {
    (now >> RECORD_WINDOW) as u32
}

/// Whether this processor has records left: who is flooded with what is dropped must not pay for each again in userspace.
#[inline(always)]
fn may_record() -> bool {
    let limit = KernelTables.config().map_or(0, |config| config.records);
    if limit == 0 {
        return true;
    }
    let Some(budget) = BUDGET.get_ptr_mut(0) else {
        return true;
    };
    let window = window(KernelTables.now());
    // SAFETY: this CPU's copy of a live map value; a program that interrupts this one only spends some of the window.
    let budget = unsafe { &mut *budget };
    if budget.window != window {
        *budget = Budget { window, used: 0 };
    }
    budget.used = budget.used.saturating_add(1);
    budget.used <= limit
}

#[inline(always)]
fn emit<P: Packet>(
    hook: Hook,
    packet: &P,
    outcome: Outcome,
    src: [u32; 4],
    dst: [u32; 4],
    protocol: u8,
    transport: &Transport,
) {
    let reserved = if may_record() {
        EVENTS.reserve_untyped::<Event>(0)
    } else {
        None
    };
    let Some(mut record) = reserved else {
        if let Some(lost) = TOTALS.get_ptr_mut(TOTALS_LOST_EVENTS) {
            add(lost, 1);
        }
        return;
    };
    record.write(Event {
        // SAFETY: the helper has no preconditions.
        time: unsafe { bpf_ktime_get_ns() },
        src,
        dst,
        ifindex: packet.ifindex(),
        rule: outcome.rule,
        len: packet.len(),
        sport: transport.sport,
        dport: if matches!(protocol, 1 | 58) {
            transport.policy_port
        } else {
            transport.dport
        },
        ethertype: packet.ethertype(),
        protocol,
        reason: outcome.reason as u8,
        hook: hook as u8,
        log: u8::from(outcome.log),
        reserved: [0; 10],
    });
    record.submit(0);
}
