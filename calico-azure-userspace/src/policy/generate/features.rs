//! Which parts of the language occur in a generated cluster.

/// Each part on or off. What is off draws no numbers, so it changes nothing else of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Host endpoints as members of selectors and owners of named ports, with FelixConfigurations.
    pub host_endpoints: bool,
    /// `applyOnForward`, `preDNAT`, `doNotTrack`.
    pub host_roles: bool,
    /// Profile objects, and pods that name their profiles.
    pub profiles: bool,
    /// Rules about services.
    pub services: bool,
    /// Named ports on either side.
    pub named_ports: bool,
    /// Ports on the source side.
    pub source_ports: bool,
    pub staged: bool,
    /// Workload endpoints with and without their pod.
    pub workload_endpoints: bool,
    /// Pods with allowed source prefixes, with FelixConfigurations.
    pub source_prefixes: bool,
}

impl Features {
    /// The whole language.
    pub const ALL: Self = Self {
        host_endpoints: true,
        host_roles: true,
        profiles: true,
        services: true,
        named_ports: true,
        source_ports: true,
        staged: true,
        workload_endpoints: true,
        source_prefixes: true,
    };

    /// What the compiler puts into tables.
    #[must_use]
    pub fn compiled() -> Self {
        Self::ALL
    }
}
