//! The oracle: judges one packet by reading the validated resources, rule by rule, in the order of the API.
//!
//! Deliberately naive (linear scans, nothing prepared) and deliberately apart: of the compiler it shares only the
//! model, the selector evaluator, effective labels and the assignment of addresses to pods.

mod matching;

use std::cmp::Ordering;
use std::net::IpAddr;

pub use matching::Criterion;

use super::labels::EffectiveLabels;
use super::store::Store;
use super::topology::{Endpoint, Topology};
use super::{Direction, Probe, RuleRef};
use crate::model::{Action, Key, Pod, Policy, Rule, TierDefault};

/// What the policies say about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it passes.
    pub allow: bool,
    /// Whether a `Log` rule matched on the way.
    pub log: bool,
    /// What decided.
    pub rule: RuleRef,
    /// Everything that was looked at, in order.
    pub trace: Vec<TraceStep>,
}

/// One step of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceStep {
    /// A tier of which at least one policy governs the endpoint in this direction.
    Tier { tier: String },
    /// A rule that does not match, and its first criterion that fails.
    Missed {
        policy: Key,
        index: u32,
        criterion: Criterion,
    },
    /// A rule that matches.
    Matched { policy: Key, index: u32, action: Action },
    /// No policy of the tier decided.
    TierDefault { tier: String, action: TierDefault },
    /// The namespace's profile; a missing one denies.
    Profile { name: String, allow: bool },
}

/// A flow's first packet between two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source.
    pub src: IpAddr,
    /// Destination, after service translation.
    pub dst: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// As [`Probe::sport`].
    pub sport: u16,
    /// As [`Probe::dport`].
    pub dport: u16,
}

/// What both sides of a flow say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathVerdict {
    /// Whether it passes both.
    pub allow: bool,
    /// `namespace/name` and egress verdict of the pod that owns the source, if one does.
    pub egress: Option<(String, Verdict)>,
    /// The same of the destination's ingress.
    pub ingress: Option<(String, Verdict)>,
}

/// Judges one packet of one pod. For many packets make one [`Oracle`].
#[must_use]
pub fn verdict(store: &Store, pod: &Pod, direction: Direction, packet: &Probe) -> Verdict {
    Oracle::new(store).verdict(pod, direction, packet)
}

/// Judges one flow at both of its ends.
#[must_use]
pub fn path(store: &Store, flow: &Flow) -> PathVerdict {
    Oracle::new(store).path(flow)
}

/// The evaluator over one state of the store.
pub struct Oracle<'a> {
    store: &'a Store,
    topology: Topology<'a>,
    /// Of the topology's endpoints, in their order.
    endpoint_labels: Vec<EffectiveLabels<'a>>,
    /// Of the store's network sets, in their order.
    set_labels: Vec<EffectiveLabels<'a>>,
}

/// How a list of rules ended.
enum End {
    Final(bool, u32),
    Pass,
    Open,
}

impl<'a> Oracle<'a> {
    /// Reads the store as it is.
    #[must_use]
    pub fn new(store: &'a Store) -> Self {
        let topology = Topology::of(store);
        let endpoints = topology.endpoints.iter();
        let endpoint_labels = endpoints
            .map(|endpoint| EffectiveLabels::of_pod(store, endpoint.pod))
            .collect();
        let sets = store.network_sets();
        let set_labels = sets
            .map(|set| EffectiveLabels::of_network_set(store, set))
            .collect();
        Self {
            store,
            topology,
            endpoint_labels,
            set_labels,
        }
    }

    /// The endpoints it knows.
    #[must_use]
    pub fn topology(&self) -> &Topology<'a> {
        &self.topology
    }

    /// Judges a packet by one pod's policy, with a full trace.
    #[must_use]
    pub fn verdict(&self, pod: &Pod, direction: Direction, packet: &Probe) -> Verdict {
        let mut trace = Vec::new();
        let (allow, log, rule) = self.walk(pod, direction, packet, &mut |step| trace.push(step()));
        Verdict {
            allow,
            log,
            rule,
            trace,
        }
    }

    /// [`Self::verdict`] without the trace: (allow, log, rule).
    #[must_use]
    pub fn decide(&self, pod: &Pod, direction: Direction, packet: &Probe) -> (bool, bool, RuleRef) {
        self.walk(pod, direction, packet, &mut |_| {})
    }

    /// Judges a flow by the egress policy of the pod that sends it and the ingress policy of the pod that gets it.
    /// Addresses without a pod have no say; what a pod sends to itself never reaches policy.
    #[must_use]
    pub fn path(&self, flow: &Flow) -> PathVerdict {
        let same_family = flow.src.is_ipv4() == flow.dst.is_ipv4();
        let sender = self.topology.owner(flow.src);
        let receiver = self.topology.owner(flow.dst);
        if let (Some(sender), Some(receiver)) = (sender, receiver)
            && sender.pod == receiver.pod
        {
            return PathVerdict {
                allow: same_family,
                egress: None,
                ingress: None,
            };
        }
        let judge = |endpoint: &Endpoint<'_>, direction, own, peer| {
            let packet = Probe {
                peer,
                own,
                protocol: flow.protocol,
                sport: flow.sport,
                dport: flow.dport,
            };
            let name = super::topology::pod_name(endpoint.pod);
            (name, self.verdict(endpoint.pod, direction, &packet))
        };
        let egress = sender.map(|pod| judge(pod, Direction::Egress, flow.src, flow.dst));
        let ingress = receiver.map(|pod| judge(pod, Direction::Ingress, flow.dst, flow.src));
        let passes =
            |side: &Option<(String, Verdict)>| side.as_ref().is_none_or(|(_, verdict)| verdict.allow);
        PathVerdict {
            allow: same_family && passes(&egress) && passes(&ingress),
            egress,
            ingress,
        }
    }

    fn walk(
        &self,
        pod: &Pod,
        direction: Direction,
        packet: &Probe,
        trace: &mut dyn FnMut(&dyn Fn() -> TraceStep),
    ) -> (bool, bool, RuleRef) {
        let labels = EffectiveLabels::of_pod(self.store, pod);
        let mut log = false;
        for tier in self.tiers() {
            let mut policies: Vec<(&Policy, &[Rule])> = Vec::new();
            for policy in self.store.policies() {
                if policy.tier == tier
                    && let Some(rules) = rules(policy, direction)
                    && policy.selector.matches(&labels)
                {
                    policies.push((policy, rules));
                }
            }
            if policies.is_empty() {
                continue;
            }
            policies.sort_by(|(a, _), (b, _)| compare_policies(a, b));
            trace(&|| TraceStep::Tier {
                tier: tier.to_owned(),
            });

            let mut passed = false;
            for (policy, rules) in policies {
                match self.rules(policy, rules, direction, packet, &mut log, trace) {
                    End::Final(allow, index) => {
                        let ingress = direction == Direction::Ingress;
                        let policy = policy.key.clone();
                        return (
                            allow,
                            log,
                            RuleRef::Rule {
                                tier: tier.to_owned(),
                                policy,
                                ingress,
                                index,
                            },
                        );
                    }
                    End::Pass => {
                        passed = true;
                        break;
                    }
                    End::Open => {}
                }
            }
            if passed {
                continue;
            }
            // A tier that nobody made denies.
            let action = self
                .store
                .tier(tier)
                .map_or(TierDefault::Deny, |t| t.default_action);
            trace(&|| TraceStep::TierDefault {
                tier: tier.to_owned(),
                action,
            });
            if action == TierDefault::Deny {
                return (
                    false,
                    log,
                    RuleRef::TierDefault {
                        tier: tier.to_owned(),
                    },
                );
            }
        }
        // The profile of the namespace allows everything; if the namespace is unknown, its stand-in denies.
        let name = format!("kns.{}", pod.namespace);
        let allow = self.store.namespace(&pod.namespace).is_some();
        trace(&|| TraceStep::Profile {
            name: name.clone(),
            allow,
        });
        (allow, log, RuleRef::Profile { name })
    }

    fn rules(
        &self,
        policy: &Policy,
        rules: &[Rule],
        direction: Direction,
        packet: &Probe,
        log: &mut bool,
        trace: &mut dyn FnMut(&dyn Fn() -> TraceStep),
    ) -> End {
        for rule in rules {
            if let Some(criterion) = self.first_miss(rule, direction, packet) {
                let index = rule.index;
                trace(&|| TraceStep::Missed {
                    policy: policy.key.clone(),
                    index,
                    criterion,
                });
                continue;
            }
            let (index, action) = (rule.index, rule.action);
            trace(&|| TraceStep::Matched {
                policy: policy.key.clone(),
                index,
                action,
            });
            match action {
                Action::Allow => return End::Final(true, index),
                Action::Deny => return End::Final(false, index),
                Action::Pass => return End::Pass,
                Action::Log => *log = true,
            }
        }
        End::Open
    }

    /// Names of tiers that have policies: existing ones by order and name, then the missing ones by name.
    fn tiers(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = self.store.policies().map(|policy| policy.tier.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.sort_by(|a, b| match (self.store.tier(a), self.store.tier(b)) {
            (Some(x), Some(y)) => compare_orders(x.order, y.order),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        });
        names
    }
}

fn rules(policy: &Policy, direction: Direction) -> Option<&[Rule]> {
    match direction {
        Direction::Ingress => policy.ingress.as_deref(),
        Direction::Egress => policy.egress.as_deref(),
    }
}

fn compare_policies(a: &Policy, b: &Policy) -> Ordering {
    compare_orders(a.order, b.order).then_with(|| composite_name(a).cmp(&composite_name(b)))
}

/// The string that breaks ties; its slashes are why `a-b` comes before `a`.
fn composite_name(policy: &Policy) -> String {
    let namespace = policy.key.namespace.clone().unwrap_or_default();
    [policy.key.name.as_str(), &namespace, policy.key.kind.as_str()].join("/")
}

fn compare_orders(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        // Not a number does not occur in a validated policy; anything fixed will do.
        (Some(a), Some(b)) => a.partial_cmp(&b).unwrap_or_else(|| a.total_cmp(&b)),
    }
}
