//! What to do about a refusal.

/// Says which rule is missing from which role. The server's message is like: `pods is forbidden: User
/// "system:serviceaccount:kube-system:calico-azure" cannot list resource "pods" in API group "" at the cluster scope`.
pub(super) fn forbidden(message: &str, path: &str) -> String {
    let quoted = |after: &str| message.split_once(after)?.1.split('"').next();
    let (group, resource) = of_path(path);
    let group = quoted("in API group \"").unwrap_or(group);
    let resource = quoted("cannot list resource \"")
        .or_else(|| quoted("cannot watch resource \""))
        .unwrap_or(resource);
    let who = match quoted("User \"") {
        Some(user) => match user
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
        {
            Some((namespace, account)) => format!("ServiceAccount {namespace}/{account}"),
            None => format!("user {user}"),
        },
        None => "the agent's ServiceAccount".to_owned(),
    };
    format!(
        "add {{apiGroups: [{group:?}], resources: [{resource:?}], verbs: [\"list\", \"watch\"]}} to the ClusterRole of {who}"
    )
}

/// Group and plural.
fn of_path(path: &str) -> (&str, &str) {
    let mut parts = path.trim_start_matches('/').split('/');
    let group = match parts.next() {
        Some("apis") => parts.next().unwrap_or_default(),
        _ => "",
    };
    let rest = parts.nth(1).unwrap_or_default();
    (group, rest.split('?').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_rule_that_is_missing() {
        let message = "networkpolicies.crd.projectcalico.org is forbidden: User \"system:serviceaccount:kube-system:calico-azure\" \
             cannot watch resource \"networkpolicies\" in API group \"crd.projectcalico.org\" at the cluster scope";
        let path = "/apis/crd.projectcalico.org/v1/networkpolicies?watch=1";
        let rule = "{apiGroups: [\"crd.projectcalico.org\"], resources: [\"networkpolicies\"], verbs: [\"list\", \"watch\"]}";
        assert_eq!(
            forbidden(message, path),
            format!("add {rule} to the ClusterRole of ServiceAccount kube-system/calico-azure")
        );
        // An authoriser that says nothing.
        assert_eq!(
            forbidden("forbidden", path),
            format!("add {rule} to the ClusterRole of the agent's ServiceAccount")
        );
        assert_eq!(
            forbidden("User \"kate\" cannot list", "/api/v1/pods"),
            "add {apiGroups: [\"\"], resources: [\"pods\"], verbs: [\"list\", \"watch\"]} to the ClusterRole of user kate"
        );
    }
}
