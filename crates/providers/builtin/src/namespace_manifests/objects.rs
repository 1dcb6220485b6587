//! Builds the Kubernetes objects of a namespace as YAML files from a spec and its settings. Pure, no I/O.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tenantry_model::Failure;

use super::config::Settings;
use tenantry_provider::verbs::Spec;

/// Annotation that holds the owner tag.
pub const OWNER: &str = "tenantry/owner";
/// Label that holds the tenant's id.
const TENANT: &str = "tenantry/tenant";
/// File of the namespace object, which has the owner tag.
pub const NAMESPACE: &str = "namespace.yaml";
/// Name of the tenant's service account, role and role binding.
const WORKLOAD: &str = "workload";
/// Highest default limits of a container: half a processor (in thousandths) and 512 MiB.
const MAX_DEFAULT_CPU: u64 = 500;
const MAX_DEFAULT_MEMORY: u64 = 512 << 20;

/// Texts of files by name.
pub type Files = BTreeMap<String, String>;

/// An error `bad_name` if the name is not a valid namespace or is reserved for the cluster.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = (1..=63).contains(&name.len())
        && name.bytes().all(inside)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if label && name != "default" && !name.starts_with("kube-") {
        return Ok(());
    }
    Err(Failure::invalid(
        "bad_name",
        "the name of a namespace must have up to 63 lower-case letters, digits and `-`, must not begin or end with `-`, and must not be `default` or `kube-…`: change `names` in the template",
    ))
}

/// Invalid settings: the name of each and the reason.
pub fn faults(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    faults.extend(settings.cpu.cpu().err().map(|why| ("cpu", why)));
    faults.extend(settings.memory.bytes().err().map(|why| ("memory", why)));
    faults.extend(settings.storage.bytes().err().map(|why| ("storage", why)));
    if !(1..=100_000).contains(&settings.pods) {
        faults.push(("pods", "must be from 1 to 100000".to_owned()));
    }
    faults
}

/// All files of a namespace.
pub fn files(spec: &Spec, settings: &Settings) -> Result<Files, Failure> {
    check_name(&spec.name)?;
    let bad = |why| Failure::invalid("bad_settings", why);
    let (cpu, memory) = (settings.cpu.cpu().map_err(bad)?, settings.memory.bytes().map_err(bad)?);
    settings.storage.bytes().map_err(bad)?;
    let mut all: Vec<(&str, Value)> = vec![
        (NAMESPACE, namespace(spec)),
        ("resource-quota.yaml", quota(spec, settings)),
        ("limit-range.yaml", limits(spec, settings, cpu, memory)),
        ("service-account.yaml", service_account(spec)),
        ("role.yaml", role(spec)),
        ("role-binding.yaml", role_binding(spec)),
        (
            "network-policy-default-deny.yaml",
            policy(spec, "default-deny", json!({ "policyTypes": ["Ingress", "Egress"] })),
        ),
        ("network-policy-allow-same-namespace.yaml", policy(spec, "allow-same-namespace", same_namespace())),
        ("network-policy-allow-dns.yaml", policy(spec, "allow-dns", dns())),
    ];
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": names,
    });
    all.push(("kustomization.yaml", kustomization));
    all.into_iter().map(|(name, object)| Ok((name.to_owned(), text(&object)?))).collect()
}

fn text(object: &Value) -> Result<String, Failure> {
    let yaml = yaml_serde::to_string(&sorted(object))
        .map_err(|_| Failure::fatal("manifest", "a manifest cannot be written as YAML"))?;
    Ok(format!("# Written by Tenantry: a change made here is undone by the next repair.\n{yaml}"))
}

/// Sorts the keys of all maps, so that equal objects give equal texts whatever order this build's maps keep.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, Value> =
                map.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), value)).collect::<Map<_, _>>())
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

fn labels(spec: &Spec) -> Map<String, Value> {
    let mut labels = Map::new();
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "tenantry".into());
    labels.insert(TENANT.to_owned(), spec.tenant.id.to_string().into());
    labels
}

fn metadata(spec: &Spec, name: &str) -> Value {
    json!({ "name": name, "namespace": spec.name, "labels": labels(spec) })
}

fn namespace(spec: &Spec) -> Value {
    let mut labels = labels(spec);
    for mode in ["enforce", "audit", "warn"] {
        labels.insert(format!("pod-security.kubernetes.io/{mode}"), "restricted".into());
        labels.insert(format!("pod-security.kubernetes.io/{mode}-version"), "latest".into());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": spec.name, "labels": labels, "annotations": { OWNER: spec.claim } },
    })
}

fn quota(spec: &Spec, settings: &Settings) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": metadata(spec, "tenant"),
        "spec": { "hard": {
            "requests.cpu": settings.cpu.0,
            "limits.cpu": settings.cpu.0,
            "requests.memory": settings.memory.0,
            "limits.memory": settings.memory.0,
            "requests.storage": settings.storage.0,
            "pods": settings.pods.to_string(),
        } },
    })
}

/// Default limits, because a quota makes Kubernetes reject containers without limits.
fn limits(spec: &Spec, settings: &Settings, cpu: u64, memory: u64) -> Value {
    let (default_cpu, default_memory) = (cpu.min(MAX_DEFAULT_CPU), memory.min(MAX_DEFAULT_MEMORY));
    json!({
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": metadata(spec, "tenant"),
        "spec": { "limits": [
            {
                "type": "Container",
                "max": { "cpu": settings.cpu.0, "memory": settings.memory.0 },
                "default": { "cpu": format!("{default_cpu}m"), "memory": default_memory.to_string() },
                "defaultRequest": {
                    "cpu": format!("{}m", (default_cpu / 5).max(1)),
                    "memory": (default_memory / 4).max(1).to_string(),
                },
            },
            { "type": "PersistentVolumeClaim", "max": { "storage": settings.storage.0 } },
        ] },
    })
}

fn service_account(spec: &Spec) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(spec, WORKLOAD),
        "automountServiceAccountToken": false,
    })
}

/// Lets the workload read config maps of its namespace and nothing else.
fn role(spec: &Spec) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata(spec, WORKLOAD),
        "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"] }],
    })
}

fn role_binding(spec: &Spec) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata(spec, WORKLOAD),
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": WORKLOAD },
        "subjects": [{ "kind": "ServiceAccount", "name": WORKLOAD, "namespace": spec.name }],
    })
}

/// A network policy for every pod of the namespace.
fn policy(spec: &Spec, name: &str, rules: Value) -> Value {
    let mut rules = rules;
    if let Some(rules) = rules.as_object_mut() {
        rules.insert("podSelector".to_owned(), json!({}));
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(spec, name),
        "spec": rules,
    })
}

fn same_namespace() -> Value {
    json!({
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{ "from": [{ "podSelector": {} }] }],
        "egress": [{ "to": [{ "podSelector": {} }] }],
    })
}

fn dns() -> Value {
    let cluster_dns = json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
        "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } },
    });
    json!({
        "policyTypes": ["Egress"],
        "egress": [{
            "to": [cluster_dns],
            "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }],
        }],
    })
}
