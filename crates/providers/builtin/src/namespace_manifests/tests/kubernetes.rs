//! Every document against the types that are generated from the schemas that Kubernetes publishes: what has a field that
//! they do not know, or a value of another type, does not come out of them as it went in.

use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

/// What is wrong with a document, if anything is.
fn fault(object: &Value) -> Option<String> {
    fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Option<String> {
        match serde_json::from_value::<T>(object.clone()) {
            Err(error) => Some(error.to_string()),
            Ok(typed) => {
                let known = serde_json::to_value(typed).unwrap();
                (known != *object).then(|| format!("{object} is taken for {known}"))
            }
        }
    }
    match object["kind"].as_str().unwrap_or_default() {
        "Namespace" => through::<Namespace>(object),
        "ResourceQuota" => through::<ResourceQuota>(object),
        "LimitRange" => through::<LimitRange>(object),
        "ServiceAccount" => through::<ServiceAccount>(object),
        "Role" => through::<Role>(object),
        "RoleBinding" => through::<RoleBinding>(object),
        "NetworkPolicy" => through::<NetworkPolicy>(object),
        // No object of a cluster's: for the tool alone, which reads the list of files.
        "Kustomization" => None,
        other => Some(format!("what is a {other}?")),
    }
}

/// The settings of every namespace that the shipped templates make.
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
    assert!(!all.is_empty(), "no shipped template makes a namespace");
    all
}

#[test]
fn every_document_is_one_that_kubernetes_takes() {
    let odd = [
        json!({}),
        json!({ "cpu": 4, "memory": 1, "storage": 1, "pods": 1 }),
        json!({ "cpu": "1m", "memory": "1.5Ki", "storage": "2k", "pods": 100_000 }),
        json!({ "cpu": "0.001", "memory": "6Ei", "storage": "1.000000001G" }),
    ];
    for settings in shipped().into_iter().chain(odd) {
        for name in ["0", "tenant-acme", &"a".repeat(63)] {
            let spec = spec(name, settings.clone());
            for (file, object) in parsed(&written(&spec)) {
                assert_eq!(fault(&object), None, "{file} with {settings}");
            }
        }
    }
}

#[test]
fn a_field_that_is_misspelt_or_of_another_type_is_found() {
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
