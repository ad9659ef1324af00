//! The maps of the TC object. Sizes are defaults; the loader may set others.

use aya_ebpf::btf_maps::{
    Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, ProgramArray, RingBuf,
};
use aya_ebpf::macros::btf_map;

use crate::abi::{
    Budget, CidrClass, Configs, CounterKey, CounterValue, CtKey4, CtKey6, CtValue, DENIED_LEN, Denied,
    EARLY_LEN, EarlyCount, Endpoint, FragKey4, FragKey6, FragValue, HostEndpoint, OwnerKey4, OwnerKey6,
    PolicyKey, PortKey, ServiceKey4, ServiceKey6, TOTALS_LEN, calls, socket_calls,
};

/// `BPF_F_NO_PREALLOC`: tables that are mostly empty take memory as they fill.
const SPARSE: usize = 1;

#[btf_map]
pub(super) static CONFIG: Array<Configs, 1> = Array::new();
#[btf_map]
pub(super) static ENDPOINTS: HashMap<u32, Endpoint, 4096> = HashMap::new();
#[btf_map]
pub(super) static HOSTS: HashMap<u32, HostEndpoint, 1024> = HashMap::new();
#[btf_map]
pub(super) static OWNERS4: HashMap<OwnerKey4, u32, 8192> = HashMap::new();
#[btf_map]
pub(super) static OWNERS6: HashMap<OwnerKey6, u32, 8192> = HashMap::new();
#[btf_map]
pub(super) static CLASS4: HashMap<u32, u64, 1_048_576, SPARSE> = HashMap::new();
#[btf_map]
pub(super) static CLASS6: HashMap<[u32; 4], u64, 1_048_576, SPARSE> = HashMap::new();
#[btf_map]
pub(super) static CIDR4: LpmTrie<u32, CidrClass, 1_048_576> = LpmTrie::new();
#[btf_map]
pub(super) static CIDR6: LpmTrie<[u32; 4], CidrClass, 1_048_576> = LpmTrie::new();
#[btf_map]
pub(super) static POLICY: HashMap<PolicyKey, u64, 1_048_576, SPARSE> = HashMap::new();
#[btf_map]
pub(super) static PORTS: HashMap<PortKey, u64, 1_048_576, SPARSE> = HashMap::new();
#[btf_map]
pub(super) static ROUTES4: LpmTrie<u32, u32, 262_144> = LpmTrie::new();
#[btf_map]
pub(super) static ROUTES6: LpmTrie<[u32; 4], u32, 262_144> = LpmTrie::new();
#[btf_map]
pub(super) static SERVICES4: HashMap<ServiceKey4, u32, 262_144, SPARSE> = HashMap::new();
#[btf_map]
pub(super) static SERVICES6: HashMap<ServiceKey6, u32, 262_144, SPARSE> = HashMap::new();
#[btf_map]
pub(super) static LINKS: HashMap<u32, u32, 4096> = HashMap::new();
#[btf_map]
pub(super) static MARKS: HashMap<u32, u64, 4096> = HashMap::new();
#[btf_map]
pub(super) static CALLS: ProgramArray<{ calls::LEN as usize }> = ProgramArray::new();
#[btf_map]
pub(super) static SOCKET_CALLS: ProgramArray<{ socket_calls::LEN as usize }> = ProgramArray::new();
#[btf_map]
pub(super) static CT_EST4: LruHashMap<CtKey4, CtValue, 262_144> = LruHashMap::new();
#[btf_map]
pub(super) static CT_HALF4: LruHashMap<CtKey4, CtValue, 65_536> = LruHashMap::new();
#[btf_map]
pub(super) static CT_EST6: LruHashMap<CtKey6, CtValue, 262_144> = LruHashMap::new();
#[btf_map]
pub(super) static CT_HALF6: LruHashMap<CtKey6, CtValue, 65_536> = LruHashMap::new();
#[btf_map]
pub(super) static FRAGS4: LruHashMap<FragKey4, FragValue, 8192> = LruHashMap::new();
#[btf_map]
pub(super) static FRAGS6: LruHashMap<FragKey6, FragValue, 8192> = LruHashMap::new();
#[btf_map]
pub(super) static DROPS: PerCpuHashMap<CounterKey, CounterValue, 16_384, SPARSE> = PerCpuHashMap::new();
#[btf_map]
pub(super) static TOTALS: PerCpuArray<CounterValue, { TOTALS_LEN as usize }> = PerCpuArray::new();
#[btf_map]
pub(super) static BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();
#[btf_map]
pub(super) static DENIED: PerCpuArray<Denied, { DENIED_LEN as usize }> = PerCpuArray::new();
#[btf_map]
pub(super) static EARLY: PerCpuArray<EarlyCount, { EARLY_LEN as usize }> = PerCpuArray::new();
#[btf_map]
pub(super) static EVENTS: RingBuf<(), 1_048_576> = RingBuf::new();
