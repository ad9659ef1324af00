//! Which pods are endpoints, where, and with which addresses, kept up to date: who claims an interface or an address,
//! and who of them has it. The rules are those of [`crate::policy::topology::Topology`], which finds the same from
//! nothing.

mod links;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::problems::Problems;
use super::sources::{SourceId, Sources};
use super::touched::Touched;
use crate::model::Pod;
use crate::policy::Problem;
use crate::policy::store::{Interface, Interfaces, Name, NodeFacts, Store};
use crate::policy::topology::{interface_name, source_spoofing};

/// Namespace and name of a pod, shared by all that claim something for it.
pub(super) type PodName = Arc<Name>;

/// A pod that policy applies to.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) pod: Arc<Pod>,
    /// Everything with the same labels and ports.
    pub(super) group: SourceId,
    /// If it runs on this node.
    local: Option<Box<Local>>,
}

#[derive(Debug, Default)]
struct Local {
    /// What its interface would be called, the likeliest name first.
    names: Vec<String>,
    interface: Option<InterfaceClaim>,
    ifindex: Option<u32>,
    /// `ifindex` when the addresses were last claimed.
    claimed_by: Option<u32>,
    addresses: Vec<AddressClaim>,
}

/// Whether only a host route supports it, and the interface.
type InterfaceClaim = (bool, u32);
/// Whether no host route supports it, and the address.
type AddressClaim = (bool, IpAddr);

/// What changed, by name.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Pods of this node of which anything is different now, also those that are gone.
    pub(super) local: BTreeSet<PodName>,
    /// Addresses that may belong to somebody else, or to somebody who is different now.
    pub(super) addresses: HashSet<IpAddr>,
}

#[derive(Debug, Default)]
pub(super) struct Claims {
    facts: NodeFacts,
    interfaces: Interfaces,
    by_name: HashMap<String, u32>,
    by_route: HashMap<IpAddr, u32>,
    by_pod: HashMap<Name, u32>,
    pods: HashMap<PodName, Endpoint>,
    local: BTreeSet<PodName>,
    /// Pods that ask for source prefixes, and what is wrong with that.
    asking: BTreeMap<Name, Vec<Problem>>,
    /// The first has the interface.
    by_ifindex: BTreeMap<u32, BTreeSet<(bool, PodName)>>,
    /// Sorted; the first has the address.
    by_address: HashMap<IpAddr, Vec<(bool, PodName)>>,
    contested_interfaces: BTreeMap<u32, Vec<Problem>>,
    contested_addresses: HashMap<IpAddr, Vec<Problem>>,
}

impl Claims {
    pub(super) fn get(&self, name: &Name) -> Option<&Endpoint> {
        self.pods.get(name)
    }

    /// Who has the address.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Endpoint> {
        let (_, name) = self.by_address.get(&address)?.first()?;
        self.pods.get(name)
    }

    /// The pod's interface and its addresses, if it is local.
    pub(super) fn local(&self, name: &PodName) -> Option<(Option<u32>, Vec<IpAddr>)> {
        let local = self.pods.get(name)?.local.as_ref()?;
        let owned = local.addresses.iter().filter(|(_, ip)| self.owns(name, *ip));
        Some((local.ifindex, owned.map(|(_, ip)| *ip).collect()))
    }

    /// Every address that the pod has.
    pub(super) fn addresses(&self, name: &PodName) -> impl Iterator<Item = IpAddr> {
        let claimed = self.pods.get(name).into_iter().flat_map(Endpoint::claims);
        claimed.map(|(_, ip)| ip).filter(move |ip| self.owns(name, *ip))
    }

    fn owns(&self, name: &PodName, address: IpAddr) -> bool {
        let first = self.by_address.get(&address).and_then(|claims| claims.first());
        first.is_some_and(|(_, owner)| owner == name)
    }

    /// Follows what was touched.
    pub(super) fn update(
        &mut self,
        store: &Store,
        touched: &Touched,
        sources: &mut Sources,
        problems: &mut Problems,
    ) -> Moved {
        let mut moved = Moved::default();
        let mut all: BTreeSet<Name> = BTreeSet::new();
        let facts = store.facts();
        if touched.facts
            && (self.facts.node != facts.node || self.facts.interface_prefixes != facts.interface_prefixes)
        {
            let known = self.pods.keys().map(|name| name.as_ref().clone());
            all.extend(known.chain(store.pods().map(|pod| (pod.namespace.clone(), pod.name.clone()))));
            self.facts = facts.clone();
        }
        if touched.settings {
            all.extend(self.asking.keys().cloned());
        }
        let mut recheck: BTreeSet<PodName> = BTreeSet::new();
        let mut links: BTreeSet<u32> = BTreeSet::new();
        if touched.interfaces {
            links = self.replace_interfaces(store.interfaces());
            recheck.extend(self.local.iter().cloned());
        }
        for name in touched.pods.union(&all) {
            let local = self.replace_pod(store, name, sources, problems, &mut links, &mut moved);
            recheck.extend(local.clone());
            moved.local.extend(local);
        }
        for name in &recheck {
            self.claim_interface(store, name, &mut links);
        }
        for ifindex in links {
            self.assign_interface(ifindex, &mut recheck, problems);
        }
        for name in recheck {
            if self.claim_addresses(&name, &mut moved.addresses) {
                moved.local.insert(name);
            }
        }
        for address in &moved.addresses {
            let claims = self.by_address.get(address).map_or(&[][..], Vec::as_slice);
            // An address that changes hands is news to all who claim it.
            let local = claims.iter().map(|(_, name)| name);
            moved
                .local
                .extend(local.filter(|name| self.local.contains(*name)).cloned());
            contest(&mut self.contested_addresses, *address, claims, problems);
        }
        moved
    }

    /// Takes in what the pod is now. Its name if it runs, or did run, on this node.
    fn replace_pod(
        &mut self,
        store: &Store,
        name: &Name,
        sources: &mut Sources,
        problems: &mut Problems,
        links: &mut BTreeSet<u32>,
        moved: &mut Moved,
    ) -> Option<PodName> {
        let pod = self.endpoint(store, name, problems);
        let known = self.pods.get_key_value(name).map(|(name, _)| Arc::clone(name));
        let name = match (known, &pod) {
            (None, None) => return None,
            (Some(name), _) => name,
            (None, Some(_)) => Arc::new(name.clone()),
        };
        let mut before = false;
        let mut local = None;
        if let Some(old) = self.pods.remove(&name) {
            before = old.local.is_some();
            local = old.local;
            sources.leave(old.group, &name);
            if local.is_none() {
                for ip in &old.pod.ips {
                    self.withdraw(&name, (true, *ip), &mut moved.addresses);
                }
            }
        }
        let Some(pod) = pod else {
            self.local.remove(&name);
            if let Some(local) = local {
                self.forget(&name, *local, links, &mut moved.addresses);
            }
            return before.then_some(name);
        };
        let here = pod.node == self.facts.node;
        if here {
            let prefixes = self.facts.interface_prefixes.iter();
            let local = local.get_or_insert_default();
            local.names = prefixes.map(|prefix| interface_name(prefix, &pod)).collect();
            self.local.insert(Arc::clone(&name));
        } else {
            self.local.remove(&name);
            if let Some(local) = local.take() {
                self.forget(&name, *local, links, &mut moved.addresses);
            }
            for ip in &pod.ips {
                self.claim(&name, (true, *ip), &mut moved.addresses);
            }
        }
        let group = sources.join(&pod, &name);
        // The same addresses may be somebody else's now, for policy: somebody with other labels.
        if here {
            let local = local.iter().flat_map(|local| &local.addresses);
            moved.addresses.extend(local.map(|(_, ip)| *ip));
        }
        self.pods
            .insert(Arc::clone(&name), Endpoint { pod, group, local });
        (here || before).then_some(name)
    }

    /// The pod, if it is one that policy applies to.
    fn endpoint(&mut self, store: &Store, name: &Name, problems: &mut Problems) -> Option<Arc<Pod>> {
        let pod = store.shared_pod(name).filter(|pod| {
            !pod.host_network && !pod.finished && (!pod.node.is_empty() || !pod.ips.is_empty())
        });
        let asks = pod.is_some_and(|pod| !pod.allowed_sources.is_empty());
        let refused = asks && pod.is_some_and(|pod| !source_spoofing(store, &pod.node));
        if asks || self.asking.contains_key(name) {
            let mut reported = self.asking.remove(name).unwrap_or_default();
            let pod = format!("{}/{}", name.0, name.1);
            let problem = refused.then_some(Problem::SourcePrefixesRefused { pod });
            problems.replace(&mut reported, problem.into_iter().collect());
            if asks {
                self.asking.insert(name.clone(), reported);
            }
        }
        pod.filter(|_| !refused).cloned()
    }

    /// A pod that no longer runs here lets go of everything.
    fn forget(
        &mut self,
        name: &PodName,
        local: Local,
        links: &mut BTreeSet<u32>,
        addresses: &mut HashSet<IpAddr>,
    ) {
        if let Some(claim) = local.interface {
            self.withdraw_interface(name, claim);
            links.insert(claim.1);
        }
        for claim in local.addresses {
            self.withdraw(name, claim, addresses);
        }
    }

    /// Of a pod of this node; whether its interface or a claim is another.
    fn claim_addresses(&mut self, name: &PodName, addresses: &mut HashSet<IpAddr>) -> bool {
        let Some(Endpoint { pod, local, .. }) = self.pods.get_mut(name) else {
            return false;
        };
        let Some(local) = local else { return false };
        let interface = local.ifindex.and_then(|i| self.interfaces.by_ifindex.get(&i));
        let routes = interface.map_or(&[][..], |Interface { behind, .. }| behind);
        let wanted = if pod.ips.is_empty() { routes } else { &pod.ips };
        let mut claims: Vec<AddressClaim> = Vec::with_capacity(wanted.len());
        for ip in wanted {
            let claim = (!routes.contains(ip), *ip);
            if !claims.contains(&claim) {
                claims.push(claim);
            }
        }
        claims.sort_by_key(|(weak, _)| *weak);
        let old = std::mem::replace(&mut local.addresses, claims.clone());
        let moved = std::mem::replace(&mut local.claimed_by, local.ifindex) != local.ifindex;
        for claim in old.iter().filter(|claim| !claims.contains(claim)) {
            self.withdraw(name, *claim, addresses);
        }
        for claim in claims.iter().filter(|claim| !old.contains(claim)) {
            self.claim(name, *claim, addresses);
        }
        moved || old != claims
    }

    fn claim(&mut self, name: &PodName, (weak, ip): AddressClaim, addresses: &mut HashSet<IpAddr>) {
        let claims = self.by_address.entry(ip).or_insert_with(|| Vec::with_capacity(1));
        let claim = (weak, Arc::clone(name));
        if let Err(place) = claims.binary_search(&claim) {
            claims.insert(place, claim);
        }
        addresses.insert(ip);
    }

    fn withdraw(&mut self, name: &PodName, (weak, ip): AddressClaim, addresses: &mut HashSet<IpAddr>) {
        if let Some(claims) = self.by_address.get_mut(&ip) {
            claims.retain(|claim| claim.0 != weak || claim.1 != *name);
            // Who had it before is to be told, and who has it now.
            if claims.is_empty() {
                self.by_address.remove(&ip);
            }
        }
        addresses.insert(ip);
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        vec![
            self.pods.len(),
            self.local.len(),
            self.asking.len(),
            self.by_ifindex.len(),
            self.by_address.len(),
            self.contested_interfaces.len(),
            self.contested_addresses.len(),
        ]
    }
}

impl Endpoint {
    fn claims(&self) -> impl Iterator<Item = AddressClaim> {
        let remote = self
            .local
            .is_none()
            .then_some(&self.pod.ips)
            .into_iter()
            .flatten();
        let local = self.local.iter().flat_map(|local| &local.addresses);
        remote.map(|ip| (true, *ip)).chain(local.copied())
    }
}

fn contest(
    reported: &mut HashMap<IpAddr, Vec<Problem>>,
    address: IpAddr,
    claims: &[(bool, PodName)],
    problems: &mut Problems,
) {
    let contested = match claims {
        [] | [_] => Vec::new(),
        [(_, winner), losers @ ..] => losers
            .iter()
            .map(|(_, loser)| Problem::AddressContested {
                address,
                winner: display(winner),
                loser: display(loser),
            })
            .collect(),
    };
    if contested.is_empty() && reported.is_empty() {
        return;
    }
    let mut before = reported.remove(&address).unwrap_or_default();
    problems.replace(&mut before, contested);
    if !before.is_empty() {
        reported.insert(address, before);
    }
}

fn display(name: &PodName) -> String {
    format!("{}/{}", name.0, name.1)
}
