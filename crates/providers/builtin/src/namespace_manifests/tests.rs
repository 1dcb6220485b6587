//! Contents of the objects and of the folder. Their schemas are tested in `kubernetes`, the provider contract
//! in `tests/it`.

mod kubernetes;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tenantry_model::TenantId;
use tenantry_model::id::{OperationId, ResourceId};

use super::*;
use tenantry_provider::verbs::{Person, Tenant};

fn spec(name: &str, settings: Value) -> Spec {
    let (tenant, resource) = (TenantId::new(), ResourceId::new());
    Spec {
        resource,
        operation: OperationId::new(),
        generation: 1,
        tenant: Tenant {
            id: tenant,
            slug: "acme".to_owned(),
            name: "Acme: {{ x }}\n---\nkind: Secret".to_owned(),
            plan: "enterprise".to_owned(),
            region: "eu".to_owned(),
            locale: "en".to_owned(),
            admin: Person::default(),
        },
        name: name.to_owned(),
        claim: format!("tenantry:{tenant}:{resource}"),
        settings,
        inputs: Default::default(),
        note: None,
    }
}

fn written(spec: &Spec) -> Files {
    objects::files(spec, &settings::of(spec).unwrap()).unwrap()
}

fn parsed(files: &Files) -> Vec<(&String, Value)> {
    files.iter().map(|(name, text)| (name, yaml_serde::from_str(text).unwrap())).collect()
}

#[test]
fn every_object_is_in_its_namespace_and_has_the_tenant_label() {
    let spec = spec("tenant-acme", json!({ "cpu": 4, "memory": "8Gi", "storage": "100Gi", "pods": 50 }));
    let files = written(&spec);
    for (file, object) in parsed(&files) {
        match object["kind"].as_str().unwrap() {
            "Kustomization" => {
                let other_files: Vec<&String> = files.keys().filter(|name| *name != file).collect();
                let mut listed = object["resources"].as_array().unwrap().clone();
                listed.sort_by_key(Value::to_string);
                assert_eq!(json!(listed), json!(other_files));
                let known = json!(["apiVersion", "kind", "resources"]);
                assert_eq!(json!(object.as_object().unwrap().keys().collect::<Vec<_>>()), known);
                assert_eq!(object["apiVersion"], "kustomize.config.k8s.io/v1beta1");
                continue;
            }
            "Namespace" => assert_eq!(object["metadata"]["name"], "tenant-acme"),
            _ => assert_eq!(object["metadata"]["namespace"], "tenant-acme", "{file}"),
        }
        let labels = object["metadata"]["labels"].as_object().unwrap();
        assert_eq!(labels["tenantry/tenant"], json!(spec.tenant.id), "{file}");
        for value in labels.values().filter_map(Value::as_str) {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            assert!(value.len() <= 63 && value.bytes().all(plain), "invalid label value: {value}");
        }
    }
    assert_eq!(files.len(), 10);
    let all: String = files.values().map(String::as_str).collect();
    assert!(
        !all.contains("Acme") && !all.contains("Secret"),
        "contains a name of a person or company: {all}"
    );
}

#[test]
fn objects_hold_the_configured_amounts() {
    let spec = spec("tenant-acme", json!({ "cpu": "1500m", "memory": "1.5Gi", "storage": "1Ti", "pods": 7 }));
    let files = written(&spec);
    let object = |name: &str| yaml_serde::from_str::<Value>(&files[name]).unwrap();
    let namespace = object("namespace.yaml");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(namespace["metadata"]["annotations"]["tenantry/owner"], json!(spec.claim));
    let hard = json!({
        "requests.cpu": "1500m", "limits.cpu": "1500m", "requests.memory": "1.5Gi", "limits.memory": "1.5Gi",
        "requests.storage": "1Ti", "pods": "7",
    });
    assert_eq!(object("resource-quota.yaml")["spec"]["hard"], hard);
    let container = object("limit-range.yaml")["spec"]["limits"][0].clone();
    assert_eq!(container["default"], json!({ "cpu": "500m", "memory": "536870912" }));
    assert_eq!(container["defaultRequest"], json!({ "cpu": "100m", "memory": "134217728" }));
    assert_eq!(object("service-account.yaml")["automountServiceAccountToken"], false);
    let denied = json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] });
    assert_eq!(object("network-policy-default-deny.yaml")["spec"], denied);
    let rules = object("role.yaml")["rules"].to_string();
    assert!(!rules.contains('*') && !rules.contains("secrets"), "{rules}");
    let tiny = Spec { settings: json!({ "cpu": "1m", "memory": 1 }), ..spec };
    let limits: Value = yaml_serde::from_str(&written(&tiny)["limit-range.yaml"]).unwrap();
    assert_eq!(limits["spec"]["limits"][0]["defaultRequest"], json!({ "cpu": "1m", "memory": "1" }));
}

#[test]
fn rejects_invalid_and_reserved_namespaces() {
    for good in ["a", "tenant-acme", "0", &"a".repeat(63)] {
        assert_eq!(objects::check_name(good), Ok(()), "{good}");
    }
    let long = "a".repeat(64);
    for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", "../x", "default", "kube-system", "a\nb", &long] {
        assert_eq!(objects::check_name(bad).unwrap_err().code, "bad_name", "{bad:?}");
    }
}

#[test]
fn rejects_invalid_settings() {
    let provider = NamespaceManifests::new(Config::new("/nowhere"));
    let paths = |settings: Value| provider.check(&settings).into_iter().map(|f| f.path).collect::<Vec<_>>();
    assert!(paths(json!({})).is_empty());
    assert!(paths(json!({ "cpu": 4, "memory": "8Gi", "storage": "1.5Ti", "pods": 1 })).is_empty());
    assert_eq!(
        paths(json!({ "cpu": "8Gi", "memory": "500m", "storage": "", "pods": 0 })),
        ["cpu", "memory", "storage", "pods"]
    );
    for bad in [json!({ "cpu": 0.5 }), json!({ "cpu": -1 }), json!({ "pods": -1 }), json!({ "cpu": null })] {
        assert_eq!(paths(bad.clone()), [""], "{bad}");
    }
}

fn put(root: &Path, spec: &Spec) -> Result<(), Failure> {
    client::put(&ResourceFolder::new(root, &spec.name, spec.resource)?, &written(spec), &spec.claim)
}

#[test]
fn a_change_replaces_the_whole_folder_and_repairs_drift() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("gitops");
    let one = spec("tenant-acme", json!({ "cpu": 1 }));
    put(&root, &one).unwrap();
    let folder = root.join("tenant-acme");
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o755);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let before = inode(&folder);
    put(&root, &one).unwrap();
    assert_eq!(inode(&folder), before, "a correct folder is not replaced");
    let more = Spec { settings: json!({ "cpu": 2 }), ..one.clone() };
    put(&root, &more).unwrap();
    assert_ne!(inode(&folder), before);
    assert!(std::fs::read_to_string(folder.join("resource-quota.yaml")).unwrap().contains("limits.cpu: '2'"));
    std::fs::remove_file(folder.join("role.yaml")).unwrap();
    std::fs::write(folder.join("extra.yaml"), "kind: Secret").unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();
    put(&root, &more).unwrap();
    let target = ResourceFolder::new(&root, &more.name, more.resource).unwrap();
    assert_eq!(client::look(&target, &more.claim).unwrap(), Ownership::Own(written(&more)));
    assert_eq!(std::fs::read_dir(root.join(".tenantry")).unwrap().count(), 0);
}

#[test]
fn a_folder_without_the_owner_tag_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in
        [("none", None), ("odd", Some("{")), ("other", Some("metadata: {annotations: {tenantry/owner: x}}"))]
    {
        let spec = spec(name, json!({}));
        std::fs::create_dir(dir.path().join(name)).unwrap();
        if let Some(text) = text {
            std::fs::write(dir.path().join(name).join("namespace.yaml"), text).unwrap();
        }
        assert_eq!(put(dir.path(), &spec).unwrap_err().code, "name_taken", "{name}");
    }
    let blocked = dir.path().join("blocked");
    std::fs::write(&blocked, "").unwrap();
    assert!(put(&blocked, &spec("a", json!({}))).unwrap_err().may_retry());
}
