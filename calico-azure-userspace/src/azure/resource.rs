//! ARM's resources, as much of them as we look at. What we do not know stays in the body, so that what is written back is whole.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A resource's id. Portals and providers change its case, so it is compared without.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(String);

impl Id {
    /// An id as ARM wrote it.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows `kind` in the path, such as the name after `subnets`.
    #[must_use]
    pub fn part(&self, kind: &str) -> Option<&str> {
        let mut parts = self.0.split('/');
        parts.find(|part| part.eq_ignore_ascii_case(kind))?;
        parts.next()
    }

    /// The last part.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The resource that this one is part of: the virtual network of a subnet.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (rest, _name) = self.0.rsplit_once('/')?;
        let (parent, _kind) = rest.rsplit_once('/')?;
        Some(Self(parent.to_owned()))
    }

    fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Id {}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.folded().cmp(&other.folded())
    }
}

/// A reference to a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Reference {
    #[serde(default)]
    pub id: Id,
}

/// `Microsoft.Network/routeTables`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteTable {
    pub id: Id,
    pub name: String,
    pub etag: String,
    pub state: String,
    pub routes: Vec<Route>,
    /// Those that use it.
    pub subnets: Vec<Id>,
    /// Routes that a gateway learns do not come here.
    pub no_gateway_routes: bool,
    /// All of it, as it came.
    pub body: Value,
}

/// One user-defined route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Route {
    pub name: String,
    /// As it is written; a service tag is none that we know.
    pub prefix: String,
    /// `VirtualAppliance`, `VnetLocal`, …
    pub kind: String,
    pub next_hop: Option<String>,
    pub state: String,
}

/// The kind of a route to an address.
pub const VIRTUAL_APPLIANCE: &str = "VirtualAppliance";
/// What ARM calls a resource that is as it was asked to be.
pub const SUCCEEDED: &str = "Succeeded";

impl Route {
    /// The prefix, if it is one.
    #[must_use]
    pub fn net(&self) -> Option<IpNet> {
        self.prefix.parse::<IpNet>().ok().map(|net| net.trunc())
    }

    /// The address that it leads to.
    #[must_use]
    pub fn hop(&self) -> Option<IpAddr> {
        self.next_hop.as_deref()?.parse().ok()
    }
}

#[derive(Deserialize)]
struct RawTable {
    #[serde(default)]
    id: Id,
    #[serde(default)]
    name: String,
    #[serde(default)]
    etag: String,
    #[serde(default)]
    properties: RawTableProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawTableProperties {
    provisioning_state: String,
    disable_bgp_route_propagation: bool,
    routes: Vec<RawRoute>,
    subnets: Vec<Reference>,
}

#[derive(Deserialize)]
struct RawRoute {
    #[serde(default)]
    name: String,
    #[serde(default)]
    properties: RawRouteProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRouteProperties {
    provisioning_state: String,
    address_prefix: String,
    next_hop_type: String,
    next_hop_ip_address: Option<String>,
}

impl RouteTable {
    /// Reads ARM's answer.
    ///
    /// # Errors
    /// If a field is of another type than ARM's.
    pub fn read(body: Value) -> Result<Self, serde_json::Error> {
        let raw = RawTable::deserialize(&body)?;
        let properties = raw.properties;
        let routes = properties.routes.into_iter().map(|route| Route {
            name: route.name,
            prefix: route.properties.address_prefix,
            kind: route.properties.next_hop_type,
            next_hop: route.properties.next_hop_ip_address.filter(|hop| !hop.is_empty()),
            state: route.properties.provisioning_state,
        });
        Ok(Self {
            id: raw.id,
            name: raw.name,
            etag: raw.etag,
            state: properties.provisioning_state,
            routes: routes.collect(),
            subnets: properties.subnets.into_iter().map(|subnet| subnet.id).collect(),
            no_gateway_routes: properties.disable_bgp_route_propagation,
            body,
        })
    }
}

/// `…/virtualNetworks/subnets`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnet {
    pub id: Id,
    pub prefixes: Vec<IpNet>,
    pub route_table: Option<Id>,
    pub security_group: Option<Id>,
}

/// `Microsoft.Network/virtualNetworks`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualNetwork {
    pub id: Id,
    pub prefixes: Vec<IpNet>,
    pub subnets: Vec<Subnet>,
}

#[derive(Deserialize)]
struct RawNetwork {
    #[serde(default)]
    id: Id,
    #[serde(default)]
    properties: RawNetworkProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawNetworkProperties {
    address_space: RawSpace,
    subnets: Vec<RawSubnet>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpace {
    address_prefixes: Vec<String>,
}

#[derive(Deserialize)]
struct RawSubnet {
    #[serde(default)]
    id: Id,
    #[serde(default)]
    properties: RawSubnetProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSubnetProperties {
    address_prefix: Option<String>,
    address_prefixes: Vec<String>,
    route_table: Option<Reference>,
    network_security_group: Option<Reference>,
}

impl VirtualNetwork {
    /// Reads ARM's answer.
    ///
    /// # Errors
    /// If a field is of another type than ARM's.
    pub fn read(body: &Value) -> Result<Self, serde_json::Error> {
        let raw = RawNetwork::deserialize(body)?;
        let nets = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        let subnets = raw.properties.subnets.into_iter().map(|subnet| {
            let properties = subnet.properties;
            let mut prefixes = properties.address_prefixes;
            prefixes.extend(properties.address_prefix);
            Subnet {
                id: subnet.id,
                prefixes: nets(&prefixes),
                route_table: properties.route_table.map(|table| table.id),
                security_group: properties.network_security_group.map(|group| group.id),
            }
        });
        Ok(Self {
            id: raw.id,
            prefixes: nets(&raw.properties.address_space.address_prefixes),
            subnets: subnets.collect(),
        })
    }
}

/// `…/networkInterfaces`, of a machine or of a scale set's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    pub id: Id,
    pub state: String,
    /// `enableIPForwarding`.
    pub forwarding: bool,
    pub primary: bool,
    /// The machine that has it.
    pub machine: Option<Id>,
    /// Its place among the interfaces of its scale set's model, if that is known.
    pub place: Option<usize>,
    pub security_group: Option<Id>,
    pub configurations: Vec<IpConfiguration>,
}

/// One address of a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpConfiguration {
    pub address: Option<IpAddr>,
    pub primary: bool,
    pub subnet: Option<Id>,
}

#[derive(Deserialize)]
struct RawNic {
    #[serde(default)]
    id: Id,
    #[serde(default)]
    properties: RawNicProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawNicProperties {
    provisioning_state: String,
    #[serde(rename = "enableIPForwarding")]
    forwarding: bool,
    primary: bool,
    virtual_machine: Option<Reference>,
    network_security_group: Option<Reference>,
    ip_configurations: Vec<RawConfiguration>,
}

#[derive(Deserialize)]
struct RawConfiguration {
    #[serde(default)]
    properties: RawConfigurationProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawConfigurationProperties {
    #[serde(rename = "privateIPAddress")]
    address: Option<String>,
    primary: bool,
    subnet: Option<Reference>,
}

impl Nic {
    /// Reads ARM's answer.
    ///
    /// # Errors
    /// If a field is of another type than ARM's.
    pub fn read(body: &Value) -> Result<Self, serde_json::Error> {
        let raw = RawNic::deserialize(body)?;
        let properties = raw.properties;
        let configurations = properties.ip_configurations.into_iter().map(|configuration| {
            let properties = configuration.properties;
            // A block of addresses is written with its length.
            let text = properties.address.unwrap_or_default();
            let address = text.split('/').next().unwrap_or_default();
            IpConfiguration {
                address: address.parse().ok(),
                primary: properties.primary,
                subnet: properties.subnet.map(|subnet| subnet.id),
            }
        });
        Ok(Self {
            id: raw.id,
            state: properties.provisioning_state,
            forwarding: properties.forwarding,
            primary: properties.primary,
            machine: properties.virtual_machine.map(|machine| machine.id),
            place: None,
            security_group: properties.network_security_group.map(|group| group.id),
            configurations: configurations.collect(),
        })
    }

    /// Its first address of the family: for IPv4 that of its primary configuration; IPv6 has none that is called so.
    #[must_use]
    pub fn first(&self, v4: bool) -> Option<IpAddr> {
        let of_family = |c: &&IpConfiguration| c.address.is_some_and(|address| address.is_ipv4() == v4);
        let mut configurations = self.configurations.iter().filter(of_family);
        let primary = configurations.clone().find(|c| c.primary);
        primary.or_else(|| configurations.next())?.address
    }

    /// Whether it has the address.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.configurations.iter().any(|c| c.address == Some(address))
    }
}

/// What a scale set's model says of its machines' network interfaces: their names, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaleSet {
    interfaces: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSet {
    properties: RawSetProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSetProperties {
    virtual_machine_profile: RawProfile,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawProfile {
    network_profile: RawNetworkProfile,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawNetworkProfile {
    network_interface_configurations: Vec<RawInterface>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawInterface {
    name: String,
}

impl ScaleSet {
    /// Reads ARM's answer.
    ///
    /// # Errors
    /// If a field is of another type than ARM's.
    pub fn read(body: &Value) -> Result<Self, serde_json::Error> {
        let profile = RawSet::deserialize(body)?.properties.virtual_machine_profile;
        let interfaces = profile.network_profile.network_interface_configurations;
        Ok(Self {
            interfaces: interfaces.into_iter().map(|interface| interface.name).collect(),
        })
    }

    /// Where the interface of this name is in the model; machines' interfaces are called as they are there.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        self.interfaces
            .iter()
            .position(|other| other.eq_ignore_ascii_case(name))
    }
}

/// A route as the fabric applies it to a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EffectiveRoute {
    /// `Default`, `User`, `VirtualNetworkGateway`.
    pub source: String,
    /// `Active` or `Invalid`.
    pub state: String,
    pub address_prefix: Vec<String>,
    pub next_hop_type: String,
    pub next_hop_ip_address: Vec<String>,
}
