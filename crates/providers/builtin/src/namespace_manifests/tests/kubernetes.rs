//! Checks every document against types generated from the schemas that Kubernetes publishes: a document with
//! an unknown field or a value of another type does not survive the round trip.

use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

/// The reason why a document is invalid, if it is.
fn fault(object: &Value) -> Option<String> {
    fn round_trip<T: DeserializeOwned + Serialize>(object: &Value) -> Option<String> {
        match serde_json::from_value::<T>(object.clone()) {
            Err(error) => Some(error.to_string()),
            Ok(typed) => {
                let known = serde_json::to_value(typed).unwrap();
                (known != *object).then(|| format!("{object} is read as {known}"))
            }
        }
    }
    match object["kind"].as_str().unwrap_or_default() {
        "Namespace" => round_trip::<Namespace>(object),
        "ResourceQuota" => round_trip::<ResourceQuota>(object),
        "LimitRange" => round_trip::<LimitRange>(object),
        "ServiceAccount" => round_trip::<ServiceAccount>(object),
        "Role" => round_trip::<Role>(object),
        "RoleBinding" => round_trip::<RoleBinding>(object),
        "NetworkPolicy" => round_trip::<NetworkPolicy>(object),
        // Not a cluster object: only the kustomize tool reads it.
        "Kustomization" => None,
        other => Some(format!("unknown kind {other}")),
    }
}

/// Settings of all namespaces in the shipped templates.
fn shipped() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../templates");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let template: Value = yaml_serde::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let steps = template["steps"].as_object().into_iter().flat_map(|steps| steps.values());
        for step in steps.filter(|step| step["kind"] == "namespace") {
            all.push(step["with"].clone());
        }
    }
    assert!(!all.is_empty(), "no shipped template has a namespace");
    all
}

#[test]
fn every_document_matches_the_kubernetes_schema() {
    let edge_cases = [
        json!({}),
        json!({ "cpu": 4, "memory": 1, "storage": 1, "pods": 1 }),
        json!({ "cpu": "1m", "memory": "1.5Ki", "storage": "2k", "pods": 100_000 }),
        json!({ "cpu": "0.001", "memory": "6Ei", "storage": "1.000000001G" }),
    ];
    for settings in shipped().into_iter().chain(edge_cases) {
        for name in ["0", "tenant-acme", &"a".repeat(63)] {
            let spec = spec(name, settings.clone());
            for (file, object) in parsed(&written(&spec)) {
                assert_eq!(fault(&object), None, "{file} with {settings}");
            }
        }
    }
}

#[test]
fn the_check_finds_misspelt_fields_and_wrong_types() {
    let files = written(&spec("tenant-acme", json!({})));
    let changed = |file: &str, at: &str, change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut object: Value = yaml_serde::from_str(&files[file]).unwrap();
        assert_eq!(fault(&object), None);
        change(object.pointer_mut(at).unwrap().as_object_mut().unwrap());
        fault(&object)
    };
    let policy = "network-policy-allow-dns.yaml";
    for (file, at, field) in [
        ("namespace.yaml", "", "apiVersion"),
        ("namespace.yaml", "/metadata", "annotations"),
        ("resource-quota.yaml", "/spec", "hard"),
        ("limit-range.yaml", "/spec/limits/0", "defaultRequest"),
        ("service-account.yaml", "", "automountServiceAccountToken"),
        ("role.yaml", "/rules/0", "apiGroups"),
        ("role-binding.yaml", "/roleRef", "apiGroup"),
        ("role-binding.yaml", "/subjects/0", "namespace"),
        (policy, "/spec", "policyTypes"),
        (policy, "/spec/egress/0/to/0", "podSelector"),
        (policy, "/spec/egress/0/to/0/namespaceSelector", "matchLabels"),
        (policy, "/spec/egress/0/ports/0", "protocol"),
    ] {
        let misspelt = changed(file, at, &|object| {
            let value = object.remove(field).unwrap();
            object.insert(format!("{field}s"), value);
        });
        assert!(misspelt.is_some(), "{file}: {at}/{field}s");
    }
    for (file, at, field, other) in [
        ("namespace.yaml", "/metadata/labels", "tenantry/tenant", json!(1)),
        ("resource-quota.yaml", "/spec/hard", "pods", json!(20)),
        ("service-account.yaml", "", "automountServiceAccountToken", json!("false")),
        ("role.yaml", "/rules/0", "verbs", json!("get")),
        (policy, "/spec/egress/0", "to", json!({})),
        (policy, "/spec", "podSelector", json!([])),
    ] {
        let wrong = changed(file, at, &|object| {
            object.insert(field.to_owned(), other.clone()).unwrap();
        });
        assert!(wrong.is_some(), "{file}: {at}/{field}");
    }
}
