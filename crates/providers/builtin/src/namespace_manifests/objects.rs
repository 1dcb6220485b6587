//! The objects of a namespace, as Kubernetes takes them. Pure: a name, an owner and amounts in, texts of files out.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tenantry_model::Failure;

use super::config::Settings;
use tenantry_provider::verbs::Spec;

/// The annotation that holds the owner mark.
pub const OWNER: &str = "tenantry/owner";
/// The label that holds the tenant's id.
const TENANT: &str = "tenantry/tenant";
/// The file of the namespace itself, with the owner mark.
pub const NAMESPACE: &str = "namespace.yaml";
/// Name of what the tenant's workload runs as.
const WORKLOAD: &str = "workload";
/// What a container gets that asks for nothing: at most half a processor and 512 MiB.
const MOST_CPU: u64 = 500;
const MOST_MEMORY: u64 = 512 << 20;

/// Files by name.
pub type Files = BTreeMap<String, String>;

/// Refuses what cannot be a namespace, or is one of the cluster's own.
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
        "a namespace has up to 63 lower-case letters, digits and `-`, begins and ends without `-`, and is neither `default` nor `kube-…`: change `names` in the template",
    ))
}

/// What is wrong with the amounts: the setting and why.
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

/// The same with its keys in order, whichever order the maps of this build keep: equal objects are equal texts.
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

/// Under a quota a container without limits is refused: it gets some.
fn limits(spec: &Spec, settings: &Settings, cpu: u64, memory: u64) -> Value {
    let (most_cpu, most_memory) = (cpu.min(MOST_CPU), memory.min(MOST_MEMORY));
    json!({
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": metadata(spec, "tenant"),
        "spec": { "limits": [
            {
                "type": "Container",
                "max": { "cpu": settings.cpu.0, "memory": settings.memory.0 },
                "default": { "cpu": format!("{most_cpu}m"), "memory": most_memory.to_string() },
                "defaultRequest": {
                    "cpu": format!("{}m", (most_cpu / 5).max(1)),
                    "memory": (most_memory / 4).max(1).to_string(),
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

/// Enough to follow its own configuration, and nothing else: no secrets, no pods, no other namespace.
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

/// A policy for every pod of the namespace.
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
