//! What Calico adds to a cluster: workload and host endpoints, profiles, settings; and services' backends.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::cluster::{
    ACCOUNTS, OTHER_NODE, PORT_NAMES, SERVICES, host_addresses, labels, namespace, net, pod_address, ports,
};
use super::rules::rule;
use super::{NODE, Rng, Shape};
use crate::model::{
    Backends, EndpointToHost, Failsafe, FelixConfiguration, HostEndpoint, Key, Kind, Labels, Pod, Profile,
    Resource, Subset, WorkloadEndpoint,
};

const EVERYTHING: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
const PROFILES: [&str; 3] = ["custom-a", "custom-b", "custom-gone"];

/// The pods, in one form or another, and everything else that `shape` asks for.
pub(super) fn resources(rng: &mut Rng, shape: &Shape, mut pods: Vec<Pod>) -> Vec<Resource> {
    let features = &shape.features;
    let mut resources = Vec::new();
    if features.services {
        resources.extend(backends(rng, shape, &pods).into_iter().map(Resource::Backends));
    }
    if features.profiles {
        resources.extend(profiles(rng, shape).into_iter().map(Resource::Profile));
        for pod in &mut pods {
            pod.profiles = rng.maybe(20, |rng| profile_names(rng, shape));
        }
    }
    if features.source_prefixes {
        for pod in &mut pods {
            if rng.chance(6) {
                pod.allowed_sources = vec![net(rng, true)];
            }
        }
    }
    if features.host_endpoints || features.source_prefixes {
        let configurations = configurations(rng, shape);
        resources.extend(configurations.into_iter().map(Resource::FelixConfiguration));
    }
    if features.host_endpoints {
        resources.extend(host_endpoints(rng, shape).into_iter().map(Resource::HostEndpoint));
    }
    for pod in pods {
        let replaced = features.workload_endpoints && rng.chance(8);
        if features.workload_endpoints && (replaced || rng.chance(8)) {
            // It says something else if its pod is there as well, which must not matter.
            let described = Pod {
                labels: if replaced {
                    pod.labels.clone()
                } else {
                    labels(rng).into()
                },
                ..pod.clone()
            };
            resources.push(Resource::WorkloadEndpoint(WorkloadEndpoint {
                name: format!("endpoint-{}", pod.name),
                interface: String::new(),
                pod: described,
            }));
        }
        if !replaced {
            resources.push(Resource::Pod(pod));
        }
    }
    resources
}

fn profile_names(rng: &mut Rng, shape: &Shape) -> Vec<String> {
    let one = |rng: &mut Rng| match rng.below(6) {
        0 => format!("kns.{}", namespace(rng.below(shape.namespaces))),
        1 => {
            let account = rng.one_of(ACCOUNTS);
            format!("ksa.{}.{account}", namespace(rng.below(shape.namespaces)))
        }
        2 => "projectcalico-default-allow".to_owned(),
        _ => rng.one_of(PROFILES).to_owned(),
    };
    (0..rng.below(4)).map(|_| one(rng)).collect()
}

fn profiles(rng: &mut Rng, shape: &Shape) -> Vec<Profile> {
    let rules = |rng: &mut Rng, ingress| {
        let count = rng.below(4);
        (0..)
            .take(count)
            .map(|index| rule(rng, &shape.features, index, ingress, false, None))
            .collect()
    };
    let mut names: Vec<String> = PROFILES.iter().take(2).map(|name| (*name).to_owned()).collect();
    // In the place of the one that its namespace would be.
    names.extend(rng.maybe(40, |rng| {
        format!("kns.{}", namespace(rng.below(shape.namespaces)))
    }));
    let mut profile = |name| {
        let mut labels_to_apply = labels(rng);
        labels_to_apply.extend(rng.maybe(50, |rng| {
            ("pcns.app".to_owned(), rng.one_of(["a", "b"]).to_owned())
        }));
        Profile {
            name,
            labels_to_apply,
            ingress: rules(rng, true),
            egress: rules(rng, false),
        }
    };
    names.into_iter().map(&mut profile).collect()
}

fn backends(rng: &mut Rng, shape: &Shape, pods: &[Pod]) -> Vec<Backends> {
    let subset = |rng: &mut Rng| {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for _ in 0..=rng.below(4) {
            match rng.pick(pods) {
                Some(pod) if rng.chance(85) => addresses.extend(&pod.ips),
                _ => addresses.push(pod_address(rng.chance(50), 250)),
            }
        }
        let ports = (0..rng.below(4)).map(|_| (rng.one_of([6, 6, 17, 132]), rng.one_of([80, 81, 8080])));
        Subset {
            ports: ports.collect(),
            addresses,
        }
    };
    let mut backends = Vec::new();
    for place in 0..shape.namespaces {
        // One with several slices and stale Endpoints, one with a slice, one with Endpoints only.
        let [front, back, old, _] = SERVICES;
        for (service, kind, number) in [
            (front, Kind::EndpointSlice, 0),
            (front, Kind::EndpointSlice, 1),
            (front, Kind::Endpoints, 0),
            (back, Kind::EndpointSlice, 0),
            (old, Kind::Endpoints, 0),
        ] {
            let count = if kind == Kind::EndpointSlice {
                1
            } else {
                rng.below(3)
            };
            let name = if kind == Kind::EndpointSlice {
                format!("{service}-{number}")
            } else {
                service.to_owned()
            };
            backends.push(Backends {
                key: Key {
                    kind,
                    namespace: Some(namespace(place)),
                    name,
                },
                service: service.to_owned(),
                subsets: (0..count).map(|_| subset(rng)).collect(),
            });
        }
    }
    backends
}

fn configurations(rng: &mut Rng, shape: &Shape) -> Vec<FelixConfiguration> {
    let failsafes = |rng: &mut Rng| {
        let one = |rng: &mut Rng| Failsafe {
            protocol: rng.one_of([6, 17]),
            port: rng.one_of([22, 53, 80]),
            net: rng.maybe(50, |rng| {
                let v4 = rng.chance(50);
                if rng.chance(50) { net(rng, v4) } else { EVERYTHING }
            }),
        };
        (0..rng.below(3)).map(|_| one(rng)).collect::<Vec<_>>()
    };
    let mut configurations = Vec::new();
    for name in ["default".to_owned(), format!("node.{NODE}")] {
        if !rng.chance(60) {
            continue;
        }
        let mut configuration = FelixConfiguration {
            name,
            ..FelixConfiguration::default()
        };
        if shape.features.source_prefixes {
            configuration.source_spoofing = rng.maybe(70, |rng| rng.chance(60));
        }
        if shape.features.host_endpoints {
            let actions = [
                EndpointToHost::Drop,
                EndpointToHost::Accept,
                EndpointToHost::Return,
                EndpointToHost::Return,
            ];
            configuration.endpoint_to_host = rng.maybe(70, |rng| rng.one_of(actions));
            configuration.failsafe_inbound = rng.maybe(50, failsafes);
            configuration.failsafe_outbound = rng.maybe(50, failsafes);
        }
        configurations.push(configuration);
    }
    configurations
}

fn host_endpoints(rng: &mut Rng, shape: &Shape) -> Vec<HostEndpoint> {
    let mut endpoints = Vec::new();
    for (node, last) in [(NODE, 0), (OTHER_NODE, 1)] {
        for place in 0..rng.below(4) {
            let interface = rng.one_of([Some("*"), Some("eth0"), None]);
            let known = interface.is_none() || rng.chance(60);
            let names = |rng: &mut Rng| {
                if shape.features.profiles {
                    profile_names(rng, shape)
                } else {
                    vec!["projectcalico-default-allow".to_owned()]
                }
            };
            let ports = if shape.features.named_ports && rng.chance(60) {
                ports(rng)
            } else {
                Vec::new()
            };
            endpoints.push(HostEndpoint {
                // Names do not go by node, and their order is not that of their making.
                name: format!("host-{}-{node}-{place}", rng.one_of(PORT_NAMES)),
                labels: if rng.chance(85) {
                    labels(rng)
                } else {
                    Labels::new()
                },
                node: node.to_owned(),
                interface: interface.map(ToOwned::to_owned),
                expected_ips: if known {
                    host_addresses(last, true)
                } else {
                    Vec::new()
                },
                profiles: rng.maybe(50, names).unwrap_or_default(),
                ports,
            });
        }
    }
    endpoints
}
