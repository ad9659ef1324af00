//! Profiles: what decides after all tiers.

use super::walk::Tape;
use super::{Oracle, Point, TraceStep};
use crate::model::{Action, Key, Kind};
use crate::policy::{Direction, Probe, RuleRef};

/// The profile that every Calico cluster has for automatic host endpoints.
const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

impl Oracle<'_> {
    /// What decides after all tiers.
    pub(super) fn profiles(
        &self,
        names: &[String],
        direction: Direction,
        packet: &Probe,
        tape: &mut Tape,
    ) -> (bool, RuleRef) {
        for name in names {
            if let Some(decided) = self.profile(name, direction, packet, tape) {
                return decided;
            }
        }
        self.at(Point::ImplicitDeny, (false, RuleRef::Implicit))
    }

    fn profile(
        &self,
        name: &str,
        direction: Direction,
        packet: &Probe,
        tape: &mut Tape,
    ) -> Option<(bool, RuleRef)> {
        let builtin = |tape: &mut Tape, allow| {
            let name = name.to_owned();
            tape.note(|| TraceStep::Profile {
                name: name.clone(),
                allow,
            });
            Some((allow, RuleRef::Profile { name }))
        };
        if let Some(profile) = self.store.profile(name) {
            let rules = match direction {
                Direction::Ingress => &profile.ingress,
                Direction::Egress => &profile.egress,
            };
            let key = Key {
                kind: Kind::Profile,
                namespace: None,
                name: name.to_owned(),
            };
            let logged = tape.log;
            let found = self.first_match(&key, rules, direction, packet, tape);
            if tape.log && !logged {
                self.at(Point::ProfileObjectLogs, ());
            }
            let (action, index) = match found {
                Some((action, index)) => (action, index),
                None => return self.at(Point::ProfileObjectUndecided, None),
            };
            // There is nothing to pass on to: Pass in a profile denies.
            self.at(
                match action {
                    Action::Allow => Point::ProfileObjectAllows,
                    Action::Pass => Point::ProfileObjectPassDenies,
                    Action::Deny | Action::Log => Point::ProfileObjectDenies,
                },
                (),
            );
            let rule = RuleRef::ProfileRule {
                name: name.to_owned(),
                ingress: direction == Direction::Ingress,
                index,
            };
            return Some((action == Action::Allow, rule));
        }
        if name == DEFAULT_ALLOW {
            return self.at(Point::ProfileDefaultAllow, builtin(tape, true));
        }
        let namespace = name.strip_prefix("kns.");
        if namespace.is_some_and(|namespace| self.store.namespace(namespace).is_some()) {
            return self.at(Point::ProfileOfNamespace, builtin(tape, true));
        }
        let account = name.strip_prefix("ksa.").and_then(|name| name.split_once('.'));
        if account.is_some_and(|(namespace, name)| self.store.service_account(namespace, name).is_some()) {
            // It gives labels and has no rules.
            return self.at(Point::ProfileOfServiceAccount, None);
        }
        self.at(Point::ProfileMissing, builtin(tape, false))
    }
}
