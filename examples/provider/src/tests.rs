//! Names that could leave the folder, and files of other owners.

use serde_json::Map;
use tenantry_model::TenantId;
use tenantry_model::id::{OperationId, ResourceId};

use super::file::Note;
use tenantry_provider::verbs::{Ownership, Person, Spec, Tenant};

fn spec(name: &str, claim: &str) -> Spec {
    let text = str::to_owned;
    Spec {
        resource: ResourceId::new(),
        operation: OperationId::new(),
        generation: 1,
        tenant: Tenant {
            id: TenantId::new(),
            slug: text("acme"),
            name: text("Acme"),
            plan: text("growth"),
            region: text("eu-1"),
            locale: text("en"),
            admin: Person::default(),
        },
        name: text(name),
        claim: text(claim),
        settings: serde_json::Value::Null,
        inputs: std::collections::BTreeMap::new(),
        note: None,
    }
}

#[test]
fn no_name_leads_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\0b", &"a".repeat(201)] {
        let failure = Note::new(dir.path(), &spec(bad, "us"), Map::new()).err().unwrap();
        assert_eq!(failure.code, "bad_name", "{bad:?}");
    }
}

#[test]
fn what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let spec_of_acme = spec("acme", "us");
    let note = |data| Note::new(dir.path(), &spec_of_acme, data).unwrap();
    let more = Map::from_iter([("more".to_owned(), true.into())]);
    assert_eq!(note(Map::new()).look().unwrap(), Ownership::Absent);
    note(Map::new()).write().unwrap();
    assert_eq!(note(Map::new()).look().unwrap(), Ownership::Own(true));
    assert_eq!(note(more).look().unwrap(), Ownership::Own(false));
    let theirs = Note::new(dir.path(), &spec("acme", "them"), Map::new()).unwrap();
    assert_eq!(theirs.look().unwrap(), Ownership::Foreign);
    for garbage in ["", "{", "[1]", "{\"owner\": 1}"] {
        std::fs::write(note(Map::new()).file(), garbage).unwrap();
        assert_eq!(note(Map::new()).look().unwrap(), Ownership::Foreign, "{garbage}");
    }
}
