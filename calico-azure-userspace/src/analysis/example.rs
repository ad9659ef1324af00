//! Manifests of a made-up cluster of any size, for tests and benchmarks of whole analyses.

use std::fmt::Write as _;

/// Pods in each namespace.
const PER_NAMESPACE: usize = 50;
/// Different applications in each namespace.
const APPS: usize = 10;

/// YAML of so many pods (in applications of a few replicas each, without addresses) and so many policies: by turns (now and
/// then) a default deny, an application that another may talk to, what an application may talk to outside, and (of Calico)
/// what an application of one namespace opens to those of another.
#[must_use]
pub fn manifests(pods: usize, policies: usize) -> String {
    let mut text = String::new();
    let namespaces = pods.div_ceil(PER_NAMESPACE).max(1);
    // Writing to a string does not fail.
    for number in 0..namespaces {
        let team = number % 4;
        let _ok = write!(
            text,
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: ns-{number}, labels: {{team: t-{team}}}}}\n"
        );
    }
    for number in 0..pods {
        let (namespace, app) = (number / PER_NAMESPACE, number % APPS);
        let _ok = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: pod-{number}\n  namespace: ns-{namespace}\n  \
             labels: {{app: app-{app}, tier: tier-{}}}\nspec:\n  containers: [{{name: c, ports: [{{name: http, containerPort: 80{:02}}}]}}]\n",
            app % 3,
            app
        );
    }
    for number in 0..policies {
        text.push_str(&policy(number, number % namespaces));
    }
    text
}

fn policy(number: usize, namespace: usize) -> String {
    let (app, peer) = (number % APPS, (number * 7 + 3) % APPS);
    let kubernetes = |spec: String| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p-{number}, namespace: \
             ns-{namespace}}}\nspec:\n{spec}"
        )
    };
    match (number / 20) % 4 {
        0 if number.is_multiple_of(4) => {
            kubernetes("  podSelector: {}\n  policyTypes: [Ingress]\n".to_owned())
        }
        0 | 1 => kubernetes(format!(
            "  podSelector: {{matchLabels: {{app: app-{app}}}}}\n  ingress:\n    - from: [{{podSelector: {{matchLabels: \
             {{app: app-{peer}}}}}}}]\n      ports: [{{port: http}}, {{port: {}, endPort: {}}}]\n",
            9000 + app,
            9100 + number
        )),
        2 => kubernetes(format!(
            "  podSelector: {{matchLabels: {{app: app-{app}}}}}\n  policyTypes: [Egress]\n  egress:\n    - to: \
             [{{ipBlock: {{cidr: 10.{number}.0.0/16, except: [10.{number}.{app}.0/24]}}}}]\n    - to: [{{namespaceSelector: \
             {{matchLabels: {{team: t-{}}}}}}}]\n      ports: [{{port: 443}}, {{port: 53, protocol: UDP}}]\n",
            app % 4
        )),
        _ => format!(
            "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: p-{number}}}\nspec:\n  \
             order: {number}\n  namespaceSelector: projectcalico.org/name == 'ns-{namespace}'\n  selector: app == 'app-{app}' && tier == 'tier-{}'\n  types: [Ingress]\n  ingress:\n    \
             - {{action: Deny, protocol: TCP, source: {{nets: [192.0.2.0/24]}}, destination: {{ports: [22]}}}}\n    \
             - {{action: Allow, source: {{namespaceSelector: team == 't-{}', selector: app == 'app-{peer}'}}}}\n",
            app % 3,
            peer % 4
        ),
    }
}
