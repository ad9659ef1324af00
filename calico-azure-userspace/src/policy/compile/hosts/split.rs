//! A stage's policy sets by the class of the near side's address.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use calico_azure_ebpf::abi::{CLASS_DEFAULT_V4, CLASS_DEFAULT_V6, PolicyKey, word};

use super::super::CompileError;
use super::super::change::Sheet;
use super::super::classes::Class;
use super::super::intern::{Handle, Interner};
use super::super::place::Context;
use super::super::predicate::{Family, Held, PerFamily, Predicate, PredicateHandle, all_ports_of};
use super::super::profiles::SetProfile;
use super::super::rules::OwnCriteria;
use super::super::sets::{Own, OwnAddress, SetContent, SetPolicy};
use super::super::side::OwnPorts;
use super::Template;

/// What a rule asks of the near side, as predicates.
#[derive(Debug)]
struct Near {
    wanted: Vec<PredicateHandle>,
    unwanted: Vec<PredicateHandle>,
    /// By which names it calls ports.
    listed: Vec<PredicateHandle>,
    excluded: Vec<PredicateHandle>,
    /// The port is one of its backends'.
    service: Option<PredicateHandle>,
}

/// The rules of one policy; `None` if none of them asks.
type Nears = Option<Vec<Option<Near>>>;

/// Sets by the predicates that matter and hold, with the number of such classes.
type Known = HashMap<(Family, Box<[Held]>), (Handle<SetContent>, usize)>;

#[derive(Debug)]
pub(super) struct Split {
    template: Handle<Template>,
    /// Of its policies, then of its profiles' rules, in order.
    near: Vec<Nears>,
    /// Everything that is asked of the near side, ascending.
    pub(super) predicates: Arc<[u32]>,
    defaults: PerFamily<Handle<SetContent>>,
    known: Known,
    /// Classes that have an entry.
    shown: BTreeSet<u32>,
}

impl Split {
    pub(super) fn new(
        template: Handle<Template>,
        context: &mut Context<'_>,
        taken: &mut Vec<Handle<SetContent>>,
    ) -> Result<Self, CompileError> {
        let content = &template.value().0;
        let mut near = Vec::new();
        for body in content.bodies() {
            let rules = context.bodies.get(body).filter(|body| body.asks_own).map(|body| {
                let rules = body.rules.iter().map(|rule| {
                    let own = rule.own.as_ref();
                    own.map(|own| Near::new(own, &mut context.interners.predicates))
                        .transpose()
                });
                rules.collect::<Result<Vec<_>, _>>()
            });
            near.push(rules.transpose()?);
        }
        content.bodies().for_each(|body| context.bodies.hold(body));
        let asked = near
            .iter()
            .flatten()
            .flatten()
            .flatten()
            .flat_map(Near::predicates);
        let mut predicates: Vec<u32> = asked
            .map(|predicate| {
                context.bodies.hold_predicate(predicate);
                predicate.id()
            })
            .collect();
        predicates.sort_unstable();
        predicates.dedup();
        let contents = &mut context.interners.contents;
        let mut default = |family| contents.intern(resolve(content, &near, family, &[]));
        let defaults = PerFamily {
            v4: default(Family::V4)?,
            v6: default(Family::V6)?,
        };
        for (class, set) in [(CLASS_DEFAULT_V4, &defaults.v4), (CLASS_DEFAULT_V6, &defaults.v6)] {
            taken.push(set.clone());
            write(context.sheet, template.id(), class, set);
        }
        Ok(Self {
            template,
            near,
            predicates: predicates.into(),
            defaults,
            known: HashMap::new(),
            shown: BTreeSet::new(),
        })
    }

    /// Takes everything back.
    pub(super) fn end(self, context: &mut Context<'_>, left: &mut Vec<Handle<SetContent>>) {
        let Self {
            template,
            near,
            defaults,
            known,
            shown,
            ..
        } = self;
        for class in shown.into_iter().chain([CLASS_DEFAULT_V4, CLASS_DEFAULT_V6]) {
            let set = template.id();
            context.sheet.policy(PolicyKey { set, class }, None);
        }
        left.extend([defaults.v4, defaults.v6]);
        left.extend(known.into_values().map(|(set, _)| set));
        for predicate in near
            .iter()
            .flatten()
            .flatten()
            .flatten()
            .flat_map(Near::predicates)
        {
            context.bodies.release_predicate(predicate);
        }
        template
            .value()
            .0
            .bodies()
            .for_each(|body| context.bodies.release(body));
        context.interners.templates.retire(template);
    }

    /// A class came into use.
    pub(super) fn show(
        &mut self,
        class: &Handle<Class>,
        contents: &mut Interner<SetContent>,
        sheet: &mut Sheet,
        taken: &mut Vec<Handle<SetContent>>,
    ) -> Result<(), CompileError> {
        let key = self.relevant(class.value());
        let set = match self.known.get_mut(&key) {
            Some((set, classes)) => {
                *classes += 1;
                set.clone()
            }
            None => {
                let content = resolve(&self.template.value().0, &self.near, key.0, &key.1);
                let set = contents.intern(content)?;
                taken.push(set.clone());
                self.known.insert(key, (set.clone(), 1));
                set
            }
        };
        if set.id() != self.defaults.get(class.value().family).id() {
            self.shown.insert(class.id());
            write(sheet, self.template.id(), class.id(), &set);
        }
        Ok(())
    }

    /// A class went out of use.
    pub(super) fn hide(
        &mut self,
        class: &Handle<Class>,
        sheet: &mut Sheet,
        left: &mut Vec<Handle<SetContent>>,
    ) {
        let key = self.relevant(class.value());
        if let Some((_, classes)) = self.known.get_mut(&key) {
            *classes = classes.saturating_sub(1);
            if *classes == 0 {
                left.extend(self.known.remove(&key).map(|(set, _)| set));
            }
        }
        if self.shown.remove(&class.id()) {
            let (set, class) = (self.template.id(), class.id());
            sheet.policy(PolicyKey { set, class }, None);
        }
    }

    fn relevant(&self, class: &Class) -> (Family, Box<[Held]>) {
        let matters = |held: &&Held| self.predicates.binary_search(&held.predicate()).is_ok();
        (
            class.family,
            class.holding.iter().filter(matters).copied().collect(),
        )
    }
}

fn write(sheet: &mut Sheet, template: u32, class: u32, set: &Handle<SetContent>) {
    let check = word::table_check(template, class);
    let entry = word::table(set.id(), word::hint::SET, check);
    sheet.policy(PolicyKey { set: template, class }, Some(entry));
}

/// The template for near sides for which exactly these predicates hold.
fn resolve(template: &SetContent, near: &[Nears], family: Family, holding: &[Held]) -> SetContent {
    let mut near = near.iter();
    let mut policy = |policy: &SetPolicy| SetPolicy {
        body: policy.body,
        own: near.next().and_then(Option::as_ref).map(|rules| {
            let own = rules.iter().map(|near| {
                let Some(near) = near else {
                    return PerFamily::default();
                };
                // Nobody asks about the other family, so the fewer tables there are the better.
                PerFamily::new(|its| {
                    if its == family {
                        near.resolve(holding)
                    } else {
                        OwnAddress::Fails.into()
                    }
                })
            });
            own.collect()
        }),
    };
    let mut content = template.clone();
    for tier in &mut content.tiers {
        tier.policies.iter_mut().for_each(|p| *p = policy(p));
    }
    for profile in content.profiles.iter_mut().flatten() {
        if let SetProfile::Rules { rules, .. } = profile {
            *rules = policy(rules);
        }
    }
    content
}

impl Near {
    fn new(own: &OwnCriteria, predicates: &mut Interner<Predicate>) -> Result<Self, CompileError> {
        let OwnCriteria { side, is_destination } = own;
        let mut intern = |predicate| predicates.intern(predicate);
        let mut addresses = |nets: &[ipnet::IpNet], selector: &Option<crate::selector::Selector>| {
            let nets = (!nets.is_empty()).then(|| Predicate::nets(nets));
            let selector = selector.clone().map(Predicate::Selector);
            nets.into_iter()
                .chain(selector)
                .map(&mut intern)
                .collect::<Result<Vec<_>, _>>()
        };
        let mut wanted = addresses(&side.nets, &side.selector)?;
        let unwanted = addresses(&side.not_nets, &side.not_selector)?;
        let mut named = |names: &[String]| {
            let predicate = |name: &String| Predicate::NamedPort {
                selector: side.selector.clone(),
                name: name.clone(),
                protocol: None,
            };
            names
                .iter()
                .map(predicate)
                .map(&mut intern)
                .collect::<Result<Vec<_>, _>>()
        };
        let (listed, excluded) = (named(&side.named_ports)?, named(&side.not_named_ports)?);
        let service = side.service.clone().map(Predicate::Service);
        let service = service.map(intern).transpose()?;
        wanted.extend(service.clone());
        Ok(Self {
            wanted,
            unwanted,
            listed,
            excluded,
            service: service.filter(|_| *is_destination),
        })
    }

    /// As often as they are there.
    fn predicates(&self) -> impl Iterator<Item = &PredicateHandle> {
        let Self {
            wanted,
            unwanted,
            listed,
            excluded,
            service,
        } = self;
        wanted
            .iter()
            .chain(unwanted)
            .chain(listed)
            .chain(excluded)
            .chain(service)
    }

    fn resolve(&self, holding: &[Held]) -> Own {
        let holds = |predicate: &PredicateHandle| holding.binary_search(&Held::of(predicate.id())).is_ok();
        if !self.wanted.iter().all(holds) || self.unwanted.iter().any(holds) {
            return OwnAddress::Fails.into();
        }
        let ports = |predicates: &mut dyn Iterator<Item = &PredicateHandle>| {
            let mut ports: Vec<(u8, u16)> = predicates.flat_map(|p| all_ports_of(holding, p.id())).collect();
            ports.sort_unstable();
            ports.dedup();
            ports.into()
        };
        Own {
            address: OwnAddress::Holds,
            ports: OwnPorts::Known {
                listed: ports(&mut self.listed.iter()),
                excluded: ports(&mut self.excluded.iter()),
                service: ports(&mut self.service.iter()),
            },
        }
    }
}
