//! `--from`, `--to` and `--namespace`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::analysis::{Connectivity, Place};

/// Someone is named whom nobody is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    #[error(
        "{flag} {who}: there is no such pod, workload or host among the inputs; expected namespace/name, namespace/*, \
         a node's name, an address or a CIDR"
    )]
    Nobody { flag: &'static str, who: String },
    #[error("--namespace {name}: no pod or workload of the inputs is in it; there are: {known}")]
    NoNamespace { name: String, known: String },
}

/// Which pairs are wanted. An empty list wants all.
#[derive(Debug, Default)]
pub(super) struct Filter {
    from: Vec<Who>,
    to: Vec<Who>,
    namespaces: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Who {
    Named(String),
    Namespace(String),
    Net(IpNet),
}

impl Filter {
    pub(super) fn new(
        from: &[String],
        to: &[String],
        namespaces: &[String],
        places: &[Place],
    ) -> Result<Self, FilterError> {
        let parse = |flag: &'static str, all: &[String]| {
            let one = |text: &String| {
                let who = Who::parse(text);
                // A range that is not listed is one that may not talk.
                let known = matches!(who, Who::Net(_)) || places.iter().any(|place| who.is(place));
                let nobody = || FilterError::Nobody {
                    flag,
                    who: text.clone(),
                };
                known.then_some(who).ok_or_else(nobody)
            };
            all.iter().map(one).collect::<Result<Vec<Who>, _>>()
        };
        for name in namespaces {
            if !places.iter().any(|place| place.namespace() == Some(name)) {
                let mut known: Vec<&str> = places.iter().filter_map(Place::namespace).collect();
                known.sort_unstable();
                known.dedup();
                return Err(FilterError::NoNamespace {
                    name: name.clone(),
                    known: known.join(", "),
                });
            }
        }
        Ok(Self {
            from: parse("--from", from)?,
            to: parse("--to", to)?,
            namespaces: namespaces.to_vec(),
        })
    }

    pub(super) fn apply(&self, found: &mut Connectivity) {
        let Self { from, to, namespaces } = self;
        if from.is_empty() && to.is_empty() && namespaces.is_empty() {
            return;
        }
        let wanted = |all: &[Who], place: &Place| all.is_empty() || all.iter().any(|who| who.is(place));
        let inside = |place: &Place| namespaces.iter().any(|name| place.namespace() == Some(name));
        found.retain(|src, dst| {
            let touches = namespaces.is_empty() || inside(src) || inside(dst);
            touches && wanted(from, src) && wanted(to, dst)
        });
    }
}

impl Who {
    fn parse(text: &str) -> Self {
        if let Ok(net) = text.parse::<IpNet>() {
            return Self::Net(net);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Self::Net(address.into());
        }
        match text.strip_suffix("/*") {
            Some(namespace) => Self::Namespace(namespace.to_owned()),
            None => Self::Named(text.to_owned()),
        }
    }

    fn is(&self, place: &Place) -> bool {
        match (self, place) {
            (
                Self::Named(wanted),
                Place::Pod { namespace, name } | Place::Workload { namespace, name, .. },
            ) => wanted.split_once('/') == Some((namespace, name)),
            (Self::Named(wanted), Place::Host { node }) => wanted == node,
            (Self::Namespace(wanted), place) => place.namespace() == Some(wanted),
            (Self::Net(wanted), Place::Cidr(net)) => wanted.contains(net) || net.contains(wanted),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_can_be_named() {
        let pod = Place::Pod {
            namespace: "a".into(),
            name: "web".into(),
        };
        let host = Place::Host {
            node: "node-1".into(),
        };
        let net = Place::Cidr("10.0.0.0/8".parse().unwrap());
        let found = |text: &str| {
            let who = Who::parse(text);
            [&pod, &host, &net].map(|place| who.is(place))
        };
        for (text, expected) in [
            ("a/web", [true, false, false]),
            ("a/*", [true, false, false]),
            ("b/web", [false; 3]),
            ("node-1", [false, true, false]),
            ("10.1.2.3", [false, false, true]),
            ("0.0.0.0/0", [false, false, true]),
            ("11.0.0.0/8", [false; 3]),
            ("::/0", [false; 3]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn who_is_nobody_is_an_error() {
        let places = [Place::Pod {
            namespace: "a".into(),
            name: "web".into(),
        }];
        let error = Filter::new(&[], &["a/wbe".into()], &[], &places).unwrap_err();
        assert!(
            error.to_string().starts_with("--to a/wbe: there is no such pod"),
            "{error}"
        );
        let error = Filter::new(&[], &[], &["b".into()], &places).unwrap_err();
        assert!(error.to_string().ends_with("there are: a"), "{error}");
        assert!(Filter::new(&["192.0.2.1".into()], &[], &["a".into()], &places).is_ok());
    }
}
