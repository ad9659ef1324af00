//! The cluster that frames are seen in: two pods, a host endpoint with policy in every stage, and a service.

use std::net::IpAddr;

use calico_azure_ebpf::abi::{DEFAULT_MARK_MASK, word};
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::dataplane::{Image, plan};
use calico_azure_userspace::model::{
    Action, HostRole, Icmp, Resource, Rule, Service, ServicePort, TargetPort,
};
use calico_azure_userspace::policy::{Compiler, Store};

use crate::harness::hosts::{cluster, host, of_host};
use crate::harness::scenario::{A, B, TUNNEL, policy, rule};
use crate::harness::settings;

/// A fabric interface without a host endpoint.
pub(super) const PLAIN: u32 = 15;
/// kube-proxy's bit.
pub(super) const MASQUERADE: u32 = 0x4000;
/// The mark of no pod.
pub(super) const NOBODYS: u32 = 0x7fff_0000;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SERVICES: [(u16, u8); 3] = [(443, TCP), (53, UDP), (80, TCP)];

fn numbered(rules: Vec<Rule>) -> Vec<Rule> {
    (0..)
        .zip(rules)
        .map(|(index, rule)| Rule { index, ..rule })
        .collect()
}

fn ping(protocol: u8, kind: u8) -> Rule {
    Rule {
        icmp: Some(Icmp {
            kind: Some(kind),
            code: None,
        }),
        ..rule(Action::Allow, Some(protocol), &[])
    }
}

/// `b` takes TCP port 80, some UDP, pings; `a` may send a bit more than that.
fn of_pods() -> [Resource; 2] {
    let common = [
        rule(Action::Allow, Some(TCP), &[(80, 80)]),
        rule(Action::Allow, Some(UDP), &[(53, 53), (1024, 2047)]),
        ping(1, 8),
        ping(58, 128),
    ];
    let sends = [
        rule(Action::Allow, Some(TCP), &[(443, 443)]),
        rule(Action::Allow, Some(132), &[(0, 65535)]),
        rule(Action::Allow, Some(47), &[]),
    ];
    let out = numbered(common.iter().chain(&sends).cloned().collect());
    [
        policy("b", "b", Some(numbered(common.to_vec())), None),
        policy("a", "a", None, Some(out)),
    ]
}

/// Every stage decides something, and leaves something.
fn of_the_host() -> Vec<Resource> {
    let allow = |protocol, ports: &[(u16, u16)]| rule(Action::Allow, Some(protocol), ports);
    let deny = |protocol, ports: &[(u16, u16)]| rule(Action::Deny, Some(protocol), ports);
    let role = |name: &str, role, ingress: Vec<Rule>, egress: Option<Vec<Rule>>| {
        of_host(name, role, Some(numbered(ingress)), egress.map(numbered))
    };
    vec![
        host("eth0"),
        role(
            "untracked",
            HostRole::Untracked,
            vec![deny(UDP, &[(7000, 7999)]), allow(TCP, &[(7000, 7999)])],
            Some(vec![deny(TCP, &[(23, 23)]), allow(UDP, &[(7000, 7999)])]),
        ),
        role(
            "predna",
            HostRole::PreDnat,
            vec![deny(TCP, &[(9000, 9999), (22, 22)]), allow(UDP, &[(9000, 9999)])],
            None,
        ),
        role(
            "forward",
            HostRole::Forward,
            vec![
                allow(TCP, &[(80, 80)]),
                deny(UDP, &[(0, 1023)]),
                ping(1, 8),
                ping(58, 128),
            ],
            Some(vec![allow(TCP, &[(443, 443)]), deny(TCP, &[])]),
        ),
        role(
            "normal",
            HostRole::Normal,
            vec![
                allow(TCP, &[(8080, 8090)]),
                allow(UDP, &[(5000, 5999)]),
                ping(1, 8),
                ping(58, 128),
            ],
            Some(vec![
                allow(TCP, &[(443, 443), (80, 80)]),
                allow(UDP, &[(123, 123)]),
                ping(1, 8),
                ping(58, 128),
            ]),
        ),
    ]
}

fn vips() -> [IpAddr; 2] {
    let v6 = [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 1];
    [IpAddr::from([10, 96, 0, 1]), IpAddr::from(v6)]
}

fn service() -> Resource {
    let port = |(port, protocol)| ServicePort {
        name: None,
        protocol,
        port,
        target: TargetPort::Number(80),
        node_port: None,
    };
    Resource::Service(Service {
        namespace: "ns".into(),
        name: "web".into(),
        selector: None,
        cluster_ips: vips().into(),
        external_ips: Vec::new(),
        ports: SERVICES.map(port).into(),
    })
}

thread_local! {
    pub(super) static IMAGE: (Store, Image) = {
        let store = cluster(of_pods().into_iter().chain(of_the_host()).chain([service()]));
        let settings = Settings {
            mark_mask: DEFAULT_MARK_MASK,
            tunnel_port: TUNNEL,
            ..settings()
        };
        let image = Compiler::default()
            .compile(&store)
            .map_err(anyhow::Error::from)
            .and_then(|output| {
                let mut image = Image::default();
                let plan = plan(&image, &output.desired, settings)?;
                for op in plan.prepare.iter().chain(&plan.flip).chain(&plan.settle) {
                    image.follow(op);
                }
                Ok(image)
            });
        (store, image.unwrap_or_else(|error| panic!("the scenario compiles: {error}")))
    };
}

/// Whether somebody serves there.
pub(super) fn is_service(address: IpAddr, protocol: u8, port: u16) -> bool {
    vips().contains(&address) && SERVICES.contains(&(port, protocol))
}

/// The mark of what a pod sends to a service, 0 if there is no such pod.
pub(super) fn mark_of(ifindex: u32) -> u32 {
    IMAGE.with(|(_, image)| {
        let endpoint = image.endpoints.get(&ifindex);
        let id = endpoint.and_then(|endpoint| word::mark_of(endpoint.mark, ifindex));
        id.map_or(0, |id| id << DEFAULT_MARK_MASK.trailing_zeros())
    })
}

/// Whose mark it is.
pub(super) fn sender_of(mark: u32) -> Option<u32> {
    [A, B]
        .into_iter()
        .find(|pod| mark & DEFAULT_MARK_MASK == mark_of(*pod))
}
