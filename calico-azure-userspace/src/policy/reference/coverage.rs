//! Which branches of the evaluator have been taken: says what tests over generated clusters have reached.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Criterion;

/// A branch of the evaluator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Branch {
    /// A rule asked for the criterion, and the packet met it or not.
    Criterion(Criterion, bool),
    Point(Point),
}

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A place in the evaluator that is not a criterion of a rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Point { $($(#[$doc])* $name,)* }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

points! {
    /// Its host role keeps the policy away from this traffic.
    PolicyOtherRole,
    /// A namespaced policy never governs a host endpoint.
    PolicyNamespacedAtHost,
    PolicyOtherDirection,
    PolicyNotSelecting,
    TierTransparent,
    TierEntered,
    /// Nobody made the tier.
    TierMissing,
    TierDeniesByDefault,
    TierPassesByDefault,
    /// Untracked and preDNAT tiers end in Pass whatever they say.
    TierEndIgnored,
    PolicyUndecided,
    RuleAllows,
    RuleDenies,
    RulePasses,
    RuleLogs,
    ProfileObjectAllows,
    ProfileObjectDenies,
    ProfileObjectPassDenies,
    ProfileObjectLogs,
    ProfileObjectUndecided,
    ProfileOfNamespace,
    ProfileOfServiceAccount,
    ProfileDefaultAllow,
    ProfileMissing,
    ImplicitDeny,
    MemberPod,
    MemberHost,
    MemberSet,
    MemberNone,
    PortInRange,
    PortNamedByPod,
    PortNamedByHost,
    /// The endpoint has the name with another protocol or number.
    PortNamedDifferently,
    /// The endpoint has the name, but the selector does not match it.
    PortNamedUnselected,
    PortNone,
    ServiceBySlices,
    /// It has no EndpointSlice, but Endpoints.
    ServiceByEndpoints,
    ServiceUnknown,
    PendingReplaces,
    PendingAdds,
    PendingRemoves,
    PendingRemovesNothing,
    PendingChangesNothing,
    PodIsolated,
    HostNone,
    HostByInterface,
    HostByAddress,
    HostAllInterfaces,
    HostFirstOfSeveral,
    FailsafeInbound,
    FailsafeOutbound,
    FailsafeOtherNet,
    FailsafeNone,
    FailsafeConfigured,
    FailsafeDefault,
    UntrackedDecides,
    UntrackedUndecided,
    PreDnatDecides,
    PreDnatUndecided,
    ForwardDecides,
    ForwardUndecided,
    NormalDecides,
    NormalUndecided,
    ToHostDropped,
    ToHostAccepted,
    ToHostReturned,
    PathFamiliesDiffer,
    PathWithinPod,
    PathWithinHost,
    PathHostToOwnPod,
    PathPodToOwnHost,
    PathPodToPodOnNode,
    PathLeavesNode,
    PathFromHost,
    PathArrivesAtHost,
    PathArrivesForPod,
    PathIsolated,
    PathOutside,
}

impl Branch {
    /// All branches.
    pub fn all() -> impl Iterator<Item = Self> {
        let criteria = Criterion::ALL
            .iter()
            .flat_map(|criterion| [false, true].map(|held| Self::Criterion(*criterion, held)));
        criteria.chain(Point::ALL.iter().map(|point| Self::Point(*point)))
    }

    fn index(self) -> usize {
        match self {
            Self::Criterion(criterion, held) => 2 * criterion as usize + usize::from(held),
            Self::Point(point) => 2 * Criterion::ALL.len() + point as usize,
        }
    }
}

const WORDS: usize = (2 * Criterion::ALL.len() + Point::ALL.len()).div_ceil(64);

/// The branches that one evaluator has taken. One load per branch taken again, so it is always on.
#[derive(Debug, Default)]
pub struct Coverage {
    taken: [AtomicU64; WORDS],
}

impl Coverage {
    pub(super) fn take(&self, branch: Branch) {
        let (word, bit) = (branch.index() / 64, 1 << (branch.index() % 64));
        if let Some(word) = self.taken.get(word)
            && word.load(Ordering::Relaxed) & bit == 0
        {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether the branch has been taken.
    #[must_use]
    pub fn has(&self, branch: Branch) -> bool {
        let word = self.taken.get(branch.index() / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (branch.index() % 64) & 1 == 1)
    }

    /// The branches that have been taken.
    pub fn taken(&self) -> impl Iterator<Item = Branch> + '_ {
        Branch::all().filter(|branch| self.has(*branch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_branch_has_a_place_of_its_own() {
        let coverage = Coverage::default();
        for (count, branch) in Branch::all().enumerate() {
            assert!(!coverage.has(branch), "{branch:?}");
            coverage.take(branch);
            assert!(coverage.has(branch), "{branch:?}");
            assert_eq!(coverage.taken().count(), count + 1, "{branch:?}");
        }
    }
}
