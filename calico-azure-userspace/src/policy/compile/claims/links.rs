//! Who has which interface.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Claims, Endpoint, InterfaceClaim, PodName, display};
use crate::policy::Problem;
use crate::policy::compile::problems::Problems;
use crate::policy::store::{Interfaces, Store};

impl Claims {
    /// Interfaces that are not what they were.
    pub(super) fn replace_interfaces(&mut self, interfaces: &Interfaces) -> BTreeSet<u32> {
        let old = std::mem::replace(&mut self.interfaces, interfaces.clone()).by_ifindex;
        let new = &interfaces.by_ifindex;
        self.by_name.clear();
        self.by_route.clear();
        self.by_pod.clear();
        for (ifindex, interface) in new.iter().filter(|(_, interface)| !interface.own) {
            self.by_name.insert(interface.name.clone(), *ifindex);
            if let Some(pod) = &interface.pod {
                self.by_pod.entry(pod.clone()).or_insert(*ifindex);
            }
            for address in &interface.behind {
                self.by_route.entry(*address).or_insert(*ifindex);
            }
        }
        let keys = old.keys().chain(new.keys());
        keys.filter(|i| old.get(i) != new.get(i)).copied().collect()
    }

    pub(super) fn withdraw_interface(&mut self, name: &PodName, (routed, ifindex): InterfaceClaim) {
        if let Some(claims) = self.by_ifindex.get_mut(&ifindex) {
            claims.remove(&(routed, Arc::clone(name)));
            if claims.is_empty() {
                self.by_ifindex.remove(&ifindex);
            }
        }
    }

    pub(super) fn claim_interface(&mut self, store: &Store, name: &PodName, links: &mut BTreeSet<u32>) {
        let Some(Endpoint { pod, local, .. }) = self.pods.get_mut(name) else {
            return;
        };
        let Some(local) = local else { return };
        let computed = local.names.iter().find_map(|name| self.by_name.get(name));
        let told = || {
            store
                .named_interfaces(pod)
                .find_map(|name| self.by_name.get(name))
        };
        let made = || self.by_pod.get(name.as_ref());
        let named = computed
            .or_else(told)
            .or_else(made)
            .map(|ifindex| (false, *ifindex));
        let routed = || pod.ips.iter().find_map(|ip| self.by_route.get(ip));
        let claim = named.or_else(|| routed().map(|ifindex| (true, *ifindex)));
        let old = std::mem::replace(&mut local.interface, claim);
        if old == claim {
            return;
        }
        if let Some(old) = old {
            local.ifindex = None;
            self.withdraw_interface(name, old);
            links.insert(old.1);
        }
        if let Some((routed, ifindex)) = claim {
            let claims = self.by_ifindex.entry(ifindex).or_default();
            claims.insert((routed, Arc::clone(name)));
            links.insert(ifindex);
        }
    }

    /// Gives the interface to the first who claims it; `moved` are all for whom it is, or may be, another.
    pub(super) fn assign_interface(
        &mut self,
        ifindex: u32,
        moved: &mut BTreeSet<PodName>,
        problems: &mut Problems,
    ) {
        let claims = self.by_ifindex.get(&ifindex).cloned().unwrap_or_default();
        let mut names = claims.iter().map(|(_, name)| name);
        let winner = names.next();
        if let Some(name) = winner {
            self.set_ifindex(name, Some(ifindex));
        }
        let interface = self.interfaces.by_ifindex.get(&ifindex);
        let interface = interface.map(|x| x.name.clone()).unwrap_or_default();
        let mut contested = Vec::new();
        for name in names {
            self.set_ifindex(name, None);
            contested.push(Problem::InterfaceContested {
                ifindex,
                interface: interface.clone(),
                winner: winner.map(display).unwrap_or_default(),
                loser: display(name),
            });
        }
        moved.extend(claims.iter().map(|(_, name)| Arc::clone(name)));
        let mut reported = self.contested_interfaces.remove(&ifindex).unwrap_or_default();
        problems.replace(&mut reported, contested);
        if !reported.is_empty() {
            self.contested_interfaces.insert(ifindex, reported);
        }
    }

    fn set_ifindex(&mut self, name: &PodName, ifindex: Option<u32>) {
        let local = self.pods.get_mut(name).and_then(|pod| pod.local.as_mut());
        if let Some(local) = local {
            local.ifindex = ifindex;
        }
    }
}
