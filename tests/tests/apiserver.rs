//! The kube-apiserver that other tests talk to: it starts, keeps what it was given, and can be broken on purpose.

use std::time::{Duration, Instant};

use calico_azure_tests::apiserver::{ApiServer, ApiSpec, CALICO_KINDS, CLUSTER_KINDS, Objects, collection};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Client, Config};

const POD: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: node-1
  containers: [{name: c, image: i}]
";

fn pods(client: Client) -> Api<Pod> {
    Api::namespaced(client, "shop")
}

async fn label(client: Client) -> kube::Result<Option<String>> {
    let labels = pods(client).get("web").await?.metadata.labels;
    Ok(labels.and_then(|labels| labels.get("app").cloned()))
}

#[test]
fn it_keeps_what_it_was_given_over_crashes_of_both() {
    let mut server = ApiServer::start().unwrap();
    assert_eq!(server.apply(POD, false).unwrap(), ["Namespace/shop", "Pod/web"]);
    server.kill().unwrap();
    let down = server.block_on(pods(server.client()).get("web"));
    assert!(down.is_err(), "a server that was killed answered");
    server.restart().unwrap();
    assert_eq!(
        server.block_on(label(server.client())).unwrap().as_deref(),
        Some("web")
    );
    server.kill_etcd().unwrap();
    server.restart_etcd().unwrap();
    assert_eq!(
        server.block_on(label(server.client())).unwrap().as_deref(),
        Some("web")
    );
}

#[test]
fn two_at_the_same_time_know_nothing_of_each_other() {
    let (one, two) = (ApiServer::start().unwrap(), ApiServer::start().unwrap());
    assert_ne!(one.url(), two.url());
    one.apply(POD, false).unwrap();
    let namespaces: Api<Namespace> = Api::all(two.client());
    let names: Vec<_> = two
        .block_on(namespaces.list(&ListParams::default()))
        .unwrap()
        .items
        .into_iter()
        .filter_map(|namespace| namespace.metadata.name)
        .collect();
    // A server that has just started has yet to make some of its own.
    assert!(
        names.contains(&"kube-system".to_owned()) && !names.contains(&"shop".to_owned()),
        "{names:?}"
    );
}

#[test]
fn a_dry_run_keeps_nothing_and_says_what_is_wrong() {
    let server = ApiServer::start().unwrap();
    server.apply(POD.split("---").next().unwrap(), false).unwrap();
    server.apply(POD, true).unwrap();
    let found = server.block_on(pods(server.client()).get_opt("web")).unwrap();
    assert!(found.is_none());
    let error = server
        .apply(&POD.replace("image: i", "imagePullPolicy: Perhaps"), true)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Pod/web") && error.contains("imagePullPolicy"),
        "{error}"
    );
}

#[test]
fn a_service_account_may_do_what_roles_allow() {
    let server = ApiServer::start().unwrap();
    server.apply(POD, false).unwrap();
    let path = server.service_account("shop", "agent").unwrap();
    let file = kube::config::Kubeconfig::read_from(path).unwrap();
    let ask = async || {
        let config = Config::from_custom_kubeconfig(file.clone(), &Default::default())
            .await
            .unwrap();
        pods(Client::try_from(config).unwrap()).get("web").await
    };
    let refused = server.block_on(ask()).unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 403),
        "{refused}"
    );
    server
        .apply(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: shop}
rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: agent, namespace: shop}]
",
            false,
        )
        .unwrap();
    // The authoriser reads roles through a watch.
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = server.block_on(ask()) {
        assert!(Instant::now() < end, "{error}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_frozen_server_answers_when_it_is_thawed() {
    let server = ApiServer::start().unwrap();
    server.freeze().unwrap();
    let namespaces: Api<Namespace> = Api::all(server.client());
    let silent = server.block_on(async {
        tokio::time::timeout(Duration::from_millis(500), namespaces.get("default")).await
    });
    assert!(silent.is_err(), "a frozen server answered");
    server.thaw().unwrap();
    server.block_on(namespaces.get("default")).unwrap();
}

#[test]
fn a_watch_from_before_a_compaction_is_told_that_it_is_too_old() {
    use futures::StreamExt as _;
    let server = ApiServer::start_with(&ApiSpec {
        watch_cache: false,
        ..ApiSpec::default()
    })
    .unwrap();
    let namespaces: Api<Namespace> = Api::all(server.client());
    let list = server.block_on(namespaces.list(&ListParams::default())).unwrap();
    let version = list.metadata.resource_version.unwrap();
    server.apply(POD, false).unwrap();
    server.compact().unwrap();
    let code = server.block_on(async {
        let events = match namespaces.watch(&WatchParams::default(), &version).await {
            Ok(events) => events,
            Err(kube::Error::Api(status)) => return status.code,
            Err(error) => panic!("{error}"),
        };
        match events.boxed().next().await {
            Some(Ok(WatchEvent::Error(status))) => status.code,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(code, 410);
}

#[test]
fn custom_kinds_are_served_once_they_are_defined() {
    let server = ApiServer::start().unwrap();
    let objects = Objects::connect(server.kubeconfig()).unwrap();
    for custom in CALICO_KINDS.iter().chain(&CLUSTER_KINDS) {
        let path = collection(&custom.api_version(), custom.kind, None);
        assert_eq!(objects.list(&path).unwrap(), None);
        objects.put(&custom.definition()).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while objects.list(&path).unwrap().is_none() {
            assert!(Instant::now() < end, "{path}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut object = serde_json::json!({
            "apiVersion": custom.api_version(), "kind": custom.kind,
            "metadata": {"name": "one"}, "spec": {"whatever": [{"it": "says"}]},
        });
        if custom.namespaced {
            object["metadata"]["namespace"] = "default".into();
        }
        // The first write after a definition may meet a server that is not done with it.
        while let Err(error) = objects.put(&object) {
            assert!(Instant::now() < end, "{error}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let listed = objects.list(&path).unwrap().unwrap();
        assert_eq!(listed[0]["spec"], object["spec"]);
        objects.delete(&object).unwrap();
        assert_eq!(objects.list(&path).unwrap().unwrap().len(), 0);
    }
}
