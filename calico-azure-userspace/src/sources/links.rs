//! The node's links, addresses and host routes, from rtnetlink.
//!
//! Every notification leads to a fresh snapshot rather than to a patched one: after a lost notification (`ENOBUFS`)
//! nothing is wrong, and a node's links are few. Only `agent` uses this.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::thread;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage, LinkXdp,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// `RTNLGRP_*` of linux/rtnetlink.h: link, IPv4 address, IPv4 route, IPv6 address, IPv6 route.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// Bytes. The kernel's notifications are pages at most (`NLMSG_GOODSIZE` of linux/netlink.h).
const NOTIFICATION: usize = 32 << 10;

/// Netlink said no.
#[derive(Debug, thiserror::Error)]
#[error("rtnetlink: {what}: {source}")]
pub struct LinksError {
    what: &'static str,
    source: io::Error,
}

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    /// The bond, the bridge or the NIC that it is a part of (accelerated networking's half); 0: it is its own.
    pub master: u32,
    /// Destinations of the full-length routes that point to it.
    pub host_routes: Vec<IpAddr>,
    /// The host's own addresses on it, link-local ones excepted.
    pub addresses: Vec<IpAddr>,
    pub kind: LinkKind,
    /// The XDP program on it.
    pub xdp: Option<u32>,
    /// Bytes.
    pub mtu: u32,
    /// Its link-layer address, like `02:00:00:00:00:01`.
    pub mac: String,
}

/// What a link is, as far as anybody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    #[default]
    Other,
    Bridge,
    /// One end of a pair, as pods' interfaces are.
    Veth,
    /// Its UDP port, the interface that carries it (0 for none), and whether its outer packets are IPv6.
    Vxlan {
        port: u16,
        parent: u32,
        v6: bool,
    },
}

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By ifindex.
    pub links: BTreeMap<u32, Link>,
    /// Addresses of all links, loopback's excepted.
    pub host_ips: BTreeSet<IpAddr>,
    /// Links that a default route points to.
    pub default_links: BTreeSet<u32>,
}

fn at<T>(what: &'static str, result: io::Result<T>) -> Result<T, LinksError> {
    result.map_err(|source| LinksError { what, source })
}

/// Takes a snapshot of the network namespace that the thread is in.
///
/// # Errors
/// [`LinksError`].
pub fn snapshot() -> Result<Snapshot, LinksError> {
    let mut snapshot = Snapshot::default();
    let mut loopback = BTreeSet::new();
    for message in dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        let RouteNetlinkMessage::NewLink(link) = message else {
            continue;
        };
        let (ifindex, found) = self::link(link);
        if found.name == "lo" {
            loopback.insert(ifindex);
        }
        snapshot.links.insert(ifindex, found);
    }
    for message in dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        let RouteNetlinkMessage::NewAddress(address) = message else {
            continue;
        };
        if loopback.contains(&address.header.index) {
            continue;
        }
        let (mut local, mut remote) = (None, None);
        for attribute in address.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Address(ip) => remote = Some(ip),
                _ => {}
            }
        }
        // On a point-to-point link `Address` is the peer's.
        let own = local.or(remote).filter(|ip| !is_link_local(ip));
        snapshot.host_ips.extend(own);
        if let Some(link) = snapshot.links.get_mut(&address.header.index) {
            link.addresses.extend(own);
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        for message in dump(RouteNetlinkMessage::GetRoute(request))? {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                add_route(&mut snapshot, &route);
            }
        }
    }
    for link in snapshot.links.values_mut() {
        link.host_routes.sort_unstable();
        link.host_routes.dedup();
        link.addresses.sort_unstable();
        link.addresses.dedup();
    }
    Ok(snapshot)
}

fn link(message: LinkMessage) -> (u32, Link) {
    let mut found = Link::default();
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::Controller(master) => found.master = master,
            LinkAttribute::Mtu(mtu) => found.mtu = mtu,
            LinkAttribute::Address(bytes) => {
                let parts: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                found.mac = parts.join(":");
            }
            LinkAttribute::Xdp(said) => {
                found.xdp = said.iter().find_map(|said| match said {
                    LinkXdp::ProgId(id) if *id != 0 => Some(*id),
                    _ => None,
                });
            }
            LinkAttribute::LinkInfo(infos) => found.kind = kind(&infos),
            _ => {}
        }
    }
    (message.header.index, found)
}

fn kind(infos: &[LinkInfo]) -> LinkKind {
    let mut kind = LinkKind::Other;
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Bridge) => kind = LinkKind::Bridge,
            LinkInfo::Kind(InfoKind::Veth) => kind = LinkKind::Veth,
            LinkInfo::Data(InfoData::Vxlan(settings)) => {
                let (mut port, mut parent, mut v6) = (0, 0, false);
                for setting in settings {
                    match setting {
                        InfoVxlan::Port(number) => port = *number,
                        InfoVxlan::Link(ifindex) => parent = *ifindex,
                        InfoVxlan::Local6(_) => v6 = true,
                        _ => {}
                    }
                }
                kind = LinkKind::Vxlan { port, parent, v6 };
            }
            _ => {}
        }
    }
    kind
}

fn add_route(snapshot: &mut Snapshot, route: &RouteMessage) {
    if route.header.kind != RouteType::Unicast {
        return;
    }
    let (mut oif, mut destination, mut gateway) = (None, None, false);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => destination = Some(IpAddr::V6(*ip)),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => gateway = true,
            _ => {}
        }
    }
    let Some(oif) = oif else { return };
    let length = route.header.destination_prefix_length;
    match destination {
        None if length == 0 => {
            snapshot.default_links.insert(oif);
        }
        Some(ip) if length == if ip.is_ipv4() { 32 } else { 128 } && !gateway && !is_link_local(&ip) => {
            if let Some(link) = snapshot.links.get_mut(&oif) {
                link.host_routes.push(ip);
            }
        }
        _ => {}
    }
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

pub(super) fn dump(request: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, LinksError> {
    let mut socket = at("opening a socket", Socket::new(NETLINK_ROUTE))?;
    at("binding it", socket.bind_auto())?;
    at("connecting it", socket.connect(&SocketAddr::new(0, 0)))?;
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
    message.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    at("asking for a dump", socket.send(&bytes, 0))?;
    let mut found = Vec::new();
    loop {
        let (bytes, _from) = at("reading a dump", socket.recv_from_full())?;
        for message in messages(&bytes) {
            match message? {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(LinksError {
                        what: "dump",
                        source: error.to_io(),
                    });
                }
                NetlinkPayload::InnerMessage(message) => found.push(message),
                _ => {}
            }
        }
    }
}

/// The messages of one datagram, up to the first that cannot be read.
fn messages(
    mut bytes: &[u8],
) -> impl Iterator<Item = Result<NetlinkPayload<RouteNetlinkMessage>, LinksError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
            Ok(message) => {
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
                Some(Ok(message.payload))
            }
            Err(error) => {
                bytes = &[];
                Some(Err(LinksError {
                    what: "decoding",
                    source: io::Error::other(error.to_string()),
                }))
            }
        }
    })
}

/// What the links' own thread is told first.
#[derive(Debug)]
pub enum News<'a> {
    /// A link is there, or is different, says a notification, and the next snapshot will. Without routes and addresses.
    Link(u32, &'a Link),
    /// Everything.
    Snapshot(&'a Snapshot),
}

/// Sends a snapshot at once and after every burst of changes, from a thread of its own, until the receiver is gone.
/// `first_hand` is told on that thread, before anything is sent: for what cannot wait until the receiver has time.
///
/// # Errors
/// If notifications cannot be had; errors after that end the thread and are sent as `Err`.
pub fn watch<E>(
    events: Sender<E>,
    mut first_hand: impl FnMut(News<'_>) + Send + 'static,
) -> Result<(), LinksError>
where
    E: From<Result<Snapshot, LinksError>> + Send + 'static,
{
    let mut socket = at("opening a socket", Socket::new(NETLINK_ROUTE))?;
    at("binding it", socket.bind_auto())?;
    for group in GROUPS {
        at("subscribing", socket.add_membership(group))?;
    }
    let first = snapshot()?;
    let run = move || {
        first_hand(News::Snapshot(&first));
        let mut last = first.clone();
        if events.send(E::from(Ok(first))).is_err() {
            return;
        }
        loop {
            let seen = notified(&socket, &mut first_hand).and_then(|()| snapshot());
            match seen {
                Ok(now) if now == last => {}
                Ok(now) => {
                    first_hand(News::Snapshot(&now));
                    last = now.clone();
                    if events.send(E::from(Ok(now))).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let _gone = events.send(E::from(Err(error)));
                    return;
                }
            }
        }
    };
    let spawned = thread::Builder::new().name("links".into()).spawn(run);
    at("starting a thread", spawned.map(drop))
}

/// Waits for notifications and reads all that are there. A snapshot takes a while where links are many, so one must do
/// for a burst, and what a new link needs at once does not wait for it.
fn notified(socket: &Socket, first_hand: &mut impl FnMut(News<'_>)) -> Result<(), LinksError> {
    let mut flags = 0;
    let mut bytes = Vec::with_capacity(NOTIFICATION);
    loop {
        bytes.clear();
        match socket.recv(&mut bytes, flags) {
            Ok(_) => {
                for message in messages(&bytes) {
                    if let Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message))) = message {
                        let (ifindex, link) = link(message);
                        first_hand(News::Link(ifindex, &link));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // What was missed shows in the snapshot all the same.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EINTR)) => {}
            Err(source) => {
                return Err(LinksError {
                    what: "reading notifications",
                    source,
                });
            }
        }
        flags = libc::MSG_DONTWAIT;
    }
}
