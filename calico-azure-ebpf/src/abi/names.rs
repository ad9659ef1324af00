//! Names of programs and maps, which are also the names of their pins.

/// The programs of the TC object.
pub mod program {
    /// Pod's host-side interface, TC ingress.
    pub const FROM_WORKLOAD: &str = "from_workload";
    /// Pod's host-side interface, TC egress.
    pub const TO_WORKLOAD: &str = "to_workload";
    /// Fabric interface, TC ingress.
    pub const FROM_FABRIC: &str = "from_fabric";
    /// Fabric interface, TC egress.
    pub const TO_FABRIC: &str = "to_fabric";
    /// Called by the two that packets leave by, for those that a pod sent to a service.
    pub const SERVICE: &str = "service";
    /// Called by [`FROM_WORKLOAD`] for IPv6.
    pub const FROM_WORKLOAD6: &str = "from_workload6";
    /// Called by [`TO_WORKLOAD`] for IPv6.
    pub const TO_WORKLOAD6: &str = "to_workload6";
    /// Called by [`SERVICE`] for IPv6.
    pub const SERVICE6: &str = "service6";
    /// Root of the host's control groups, ingress: what came for a service that this very host serves.
    pub const TO_HOST: &str = "to_host";
    /// Called by the two that packets leave by, for those that came in by a host endpoint's interface for a service.
    pub const HOST_SERVICE4: &str = "host_service4";
    /// As [`HOST_SERVICE4`], for IPv6.
    pub const HOST_SERVICE6: &str = "host_service6";
    /// Called by [`TO_HOST`] for the same.
    pub const HOST_SOCKET4: &str = "host_socket4";
    /// As [`HOST_SOCKET4`], for IPv6.
    pub const HOST_SOCKET6: &str = "host_socket6";
    /// Called by `from_fabric` where the interface has a host endpoint: its policy for IPv4.
    pub const HOST_IN4: &str = "host_in4";
    /// As [`HOST_IN4`], for IPv6.
    pub const HOST_IN6: &str = "host_in6";
    /// As [`HOST_IN4`], called by `to_fabric`.
    pub const HOST_OUT4: &str = "host_out4";
    /// As [`HOST_OUT4`], for IPv6.
    pub const HOST_OUT6: &str = "host_out6";
    /// Called by `from_fabric` and `to_fabric` for what is sent to a pod that is gone, IPv4.
    pub const RESET4: &str = "reset4";
    /// As [`RESET4`], for IPv6.
    pub const RESET6: &str = "reset6";
    /// Fabric interface, XDP: what untracked policy denies goes before the kernel has made a packet of it.
    pub const UNTRACKED: &str = "untracked";
}

/// Maps of the TC object.
pub mod map {
    /// Array of one `Config`.
    pub const CONFIG: &str = "CONFIG";
    /// ifindex → `Endpoint`.
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// ifindex → `HostEndpoint`.
    pub const HOSTS: &str = "HOSTS";
    /// `OwnerKey4` → u32.
    pub const OWNERS4: &str = "OWNERS4";
    /// `OwnerKey6` → u32.
    pub const OWNERS6: &str = "OWNERS6";
    /// IPv4 address → slot word of peer classes.
    pub const CLASS4: &str = "CLASS4";
    /// IPv6 address → slot word of peer classes.
    pub const CLASS6: &str = "CLASS6";
    /// IPv4 prefix → `CidrClass`.
    pub const CIDR4: &str = "CIDR4";
    /// IPv6 prefix → `CidrClass`.
    pub const CIDR6: &str = "CIDR6";
    /// `PolicyKey` → table word.
    pub const POLICY: &str = "POLICY";
    /// `PortKey` → decision word.
    pub const PORTS: &str = "PORTS";
    /// IPv4 prefix → `route` bits.
    pub const ROUTES4: &str = "ROUTES4";
    /// IPv6 prefix → `route` bits.
    pub const ROUTES6: &str = "ROUTES6";
    /// `ServiceKey4` → u32.
    pub const SERVICES4: &str = "SERVICES4";
    /// `ServiceKey6` → u32.
    pub const SERVICES6: &str = "SERVICES6";
    /// ifindex → 1: interfaces that have our programs, or are no pods'.
    pub const LINKS: &str = "LINKS";
    /// Mark → mark word.
    pub const MARKS: &str = "MARKS";
    /// `calls` → program.
    pub const CALLS: &str = "CALLS";
    /// `socket_calls` → program: one table cannot hold programs of two kinds.
    pub const SOCKET_CALLS: &str = "SOCKET_CALLS";
    /// Established IPv4 flows.
    pub const CT_EST4: &str = "CT_EST4";
    /// Half-open IPv4 flows.
    pub const CT_HALF4: &str = "CT_HALF4";
    /// Established IPv6 flows.
    pub const CT_EST6: &str = "CT_EST6";
    /// Half-open IPv6 flows.
    pub const CT_HALF6: &str = "CT_HALF6";
    /// `FragKey4` → `FragValue`.
    pub const FRAGS4: &str = "FRAGS4";
    /// `FragKey6` → `FragValue`.
    pub const FRAGS6: &str = "FRAGS6";
    /// `CounterKey` → `CounterValue`, per CPU.
    pub const DROPS: &str = "DROPS";
    /// hook × reason → `CounterValue`, per CPU.
    pub const TOTALS: &str = "TOTALS";
    /// Per-CPU array of one `Budget`.
    pub const BUDGET: &str = "BUDGET";
    /// Per-CPU array of `Denied`, by `Denied::place`.
    pub const DENIED: &str = "DENIED";
    /// Per-CPU array of `EarlyCount`.
    pub const EARLY: &str = "EARLY";
    /// Ring buffer of `Event`.
    pub const EVENTS: &str = "EVENTS";
}

/// Entries of `CALLS`: which program.
pub mod calls {
    /// `service`.
    pub const SERVICE: u32 = 0;
    /// `to_workload`.
    pub const TO_WORKLOAD: u32 = 1;
    /// `to_fabric`.
    pub const TO_FABRIC: u32 = 2;
    /// `from_workload6`.
    pub const FROM_WORKLOAD6: u32 = 3;
    /// `to_workload6`.
    pub const TO_WORKLOAD6: u32 = 4;
    /// `service6`.
    pub const SERVICE6: u32 = 5;
    /// `host_in4`.
    pub const HOST_IN4: u32 = 6;
    /// `host_in6`.
    pub const HOST_IN6: u32 = 7;
    /// `host_out4`.
    pub const HOST_OUT4: u32 = 8;
    /// `host_out6`.
    pub const HOST_OUT6: u32 = 9;
    /// `reset4`.
    pub const RESET4: u32 = 10;
    /// `reset6`.
    pub const RESET6: u32 = 11;
    /// `host_service4`.
    pub const HOST_SERVICE4: u32 = 12;
    /// `host_service6`.
    pub const HOST_SERVICE6: u32 = 13;
    /// How many.
    pub const LEN: u32 = 14;
}

/// Entries of `SOCKET_CALLS`: which program.
pub mod socket_calls {
    /// `host_socket4`.
    pub const HOST_SOCKET4: u32 = 0;
    /// `host_socket6`.
    pub const HOST_SOCKET6: u32 = 1;
    /// How many.
    pub const LEN: u32 = 2;
}
