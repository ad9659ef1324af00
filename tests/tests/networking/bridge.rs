//! Pods on a bridge: the same, and who lies about addresses there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use calico_azure_tests::lab::probe::{self, Crafted, Payload};
use calico_azure_tests::lab::{NetNs, Networking, Plugin, plan};

use crate::world::{FORGED, SOON, WEB, World};

impl World {
    /// Who says on the bridge that another's address is his gets nothing of it, and keeps nobody from it.
    fn lies_about_addresses(&self) {
        assert_eq!(self.plugin, Plugin::Bridge);
        let (client, near) = (self.ns("client"), self.ns("near"));
        let mac = |ns: &NetNs| mac(&ns.ip(&["-o", "link", "show", "eth0"]).unwrap(), "link/ether");
        let (liar, victim) = (mac(&client), mac(&near));
        for (v6, gateway) in [(false, "10.244.1.1"), (true, "fd00:10:244:1::1")] {
            let gateway: IpAddr = gateway.parse().unwrap();
            let outside: IpAddr = if v6 {
                plan::OUTSIDE_V6.into()
            } else {
                plan::OUTSIDE_V4.into()
            };
            assert!(self.tcp("near", outside, 443, SOON));
            let neighbour = || {
                let text = gateway.to_string();
                mac_of(&near.ip(&["neigh", "show", &text]).unwrap())
            };
            let honest = neighbour();
            assert_ne!(honest, liar);
            let before = self.counted("spoofed-source");
            let lie = match (gateway, self.ip("near", v6)) {
                (IpAddr::V4(says), IpAddr::V4(to)) => arp_reply(liar, victim, says, to),
                (IpAddr::V6(says), IpAddr::V6(to)) => {
                    advertisement(liar, victim, self.ip("client", v6), says, to)
                }
                _ => unreachable!("both are of one family"),
            };
            for _ in 0..3 {
                probe::frame(&client, "eth0", &lie).unwrap();
            }
            let end = Instant::now() + SOON;
            while self.counted("spoofed-source") < before + 3 {
                assert!(Instant::now() < end, "not counted");
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(neighbour(), honest);
            assert!(self.tcp("near", outside, 443, SOON));
            // The same words about himself pass.
            let truth = match (self.ip("client", v6), self.ip("near", v6)) {
                (IpAddr::V4(says), IpAddr::V4(to)) => arp_reply(liar, victim, says, to),
                (IpAddr::V6(says), IpAddr::V6(to)) => advertisement(liar, victim, says.into(), says, to),
                _ => unreachable!("both are of one family"),
            };
            let before = self.counted("spoofed-source");
            probe::frame(&client, "eth0", &truth).unwrap();
            assert!(self.tcp("client", self.ip("near", v6), WEB, SOON));
            assert_eq!(self.counted("spoofed-source"), before);
            // A frame for nobody goes to all ports, and nobody but the one with the address is asked whether he takes it.
            let before = self.counted("foreign-destination");
            let payload = Payload::Udp {
                sport: FORGED,
                dport: FORGED,
            };
            let crafted = Crafted {
                src: self.ip("client", v6),
                dst: self.ip("far", v6),
                payload,
            };
            let kind = if v6 { [0x86, 0xdd] } else { [8, 0] };
            let stray = [
                &[2, 0, 0, 0xde, 0xad, 1][..],
                &liar,
                &kind,
                &crafted.bytes().unwrap(),
            ]
            .concat();
            probe::frame(&client, "eth0", &stray).unwrap();
            let end = Instant::now() + SOON;
            while self.counted("foreign-destination") == before {
                assert!(Instant::now() < end, "not counted");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn mac(text: &str, after: &str) -> [u8; 6] {
    let mut words = text.split_whitespace().skip_while(|word| *word != after);
    let text = words.nth(1).unwrap();
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

fn mac_of(neighbour: &str) -> [u8; 6] {
    mac(neighbour, "lladdr")
}

/// RFC 826: `says` is at `liar`.
fn arp_reply(liar: [u8; 6], victim: [u8; 6], says: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    let body = [&head[..], &liar, &says.octets(), &victim, &to.octets()].concat();
    [&victim[..], &liar, &[8, 6], &body].concat()
}

/// RFC 4861, 4.4: the same in IPv6, overriding what was known.
fn advertisement(liar: [u8; 6], victim: [u8; 6], src: IpAddr, says: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    bytes.extend(says.octets());
    bytes.extend([2, 1]);
    bytes.extend(liar);
    let payload = Payload::Other { protocol: 58, bytes };
    let mut packet = Crafted {
        src,
        dst: to.into(),
        payload,
    }
    .bytes()
    .unwrap();
    packet[7] = 255;
    [&victim[..], &liar, &[0x86, 0xdd], &packet].concat()
}

#[test]
fn pods_on_a_bridge() {
    for networking in [Networking::HostLocal, Networking::Flannel] {
        let world = World::start_with(networking, Plugin::Bridge);
        for pod in world.cluster.pods.values() {
            let node = world.cluster.node(&pod.manifest.node).unwrap();
            let link = node.ns().ip(&["-o", "link", "show", pod.net.ifname()]).unwrap();
            assert!(link.contains("master cni0"), "{link}");
        }
        world.allowed_and_denied();
        world.known();
        world.forged_sources();
        world.lies_about_addresses();
        for agent in &world.cluster.agents {
            let status = agent.status().unwrap().unwrap();
            assert_eq!(status.problems, Vec::<String>::new());
        }
    }
}
