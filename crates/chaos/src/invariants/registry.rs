//! Invariants of the registry's rows. Each row of a query is a fault.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Checked, Ground};

/// Each invariant with the queries for its faults.
const INVARIANTS: [(&str, &[&str]); 10] = [
    ("no_tenant_has_two_running_operations", &["
        SELECT tenant_id || ': ' || string_agg(kind || ' ' || state, ', ') FROM operations
        WHERE parent_id IS NULL AND state NOT IN ('succeeded', 'rolled_back', 'cancelled')
        GROUP BY tenant_id HAVING count(*) > 1"]),
    ("steps_agree_with_their_operation", &["
        SELECT o.id || ' ' || o.kind || ' ' || o.state || ': ' || s.key || ' ' || s.state
        FROM steps s JOIN operations o ON o.id = s.operation_id
        WHERE o.state = 'succeeded' AND s.state NOT IN ('done', 'skipped')
           OR o.state = 'rolled_back' AND s.state NOT IN ('undone', 'skipped')
           OR o.state IN ('succeeded', 'rolled_back', 'cancelled') AND s.state IN ('running', 'retrying', 'undoing')"]),
    ("the_status_agrees_with_operations", &[
        "SELECT id || ' is ' || status || ' and was never activated' FROM tenants
         WHERE status IN ('active', 'suspended') AND activated_at IS NULL",
        "SELECT id || ' is ' || status || ' with suspensions ' || suspensions::text FROM tenants
         WHERE status IN ('active', 'suspended') AND (status = 'suspended') <> (suspensions <> '{}')",
        "SELECT t.id || ' is ' || t.status || ' with ' || count(o.id) || ' unfinished operations' FROM tenants t
         LEFT JOIN operations o ON o.tenant_id = t.id AND o.parent_id IS NULL
            AND o.state NOT IN ('succeeded', 'rolled_back', 'cancelled')
            AND (o.kind IN ('offboard', 'erase')) = (t.status = 'deprovisioning')
         WHERE t.status IN ('provisioning', 'deprovisioning', 'pending')
         GROUP BY t.id, t.status HAVING (count(o.id) > 0) <> (t.status <> 'pending')",
        "SELECT id || ' is deleted without a time' FROM tenants
         WHERE status = 'deprovisioned' AND deprovisioned_at IS NULL",
    ]),
    ("fences_are_applied", &["
        SELECT id || ': ' || coalesce(denied, 'none') || ' is wanted, not ' || coalesce(fenced, 'none')
        FROM tenants WHERE denied IS DISTINCT FROM fenced"]),
    ("events_and_audit_records_are_numbered_without_gaps", &[
        "SELECT count(*) || ' events, the last has number ' || max(seq) FROM events
         HAVING count(*) <> coalesce(max(seq), 0)",
        "SELECT count(*) || ' audit records, the last has number ' || max(seq) FROM audit
         HAVING count(*) <> coalesce(max(seq), 0)",
    ]),
    ("each_change_has_one_event", &[
        "SELECT t.id || ' is ' || t.status || ' with ' || count(e.id) || ' events tenant.provisioned' FROM tenants t
         LEFT JOIN events e ON e.tenant_id = t.id AND e.type = 'tenant.provisioned'
         GROUP BY t.id HAVING count(e.id) <> (t.activated_at IS NOT NULL)::int",
        "SELECT t.id || ' is ' || t.status || ' with ' || count(e.id) || ' events tenant.deleted' FROM tenants t
         LEFT JOIN events e ON e.tenant_id = t.id AND e.type = 'tenant.deleted'
         GROUP BY t.id HAVING count(e.id) <> (t.status = 'deprovisioned')::int",
    ]),
    ("slots_are_those_of_living_tenants", &[
        "SELECT 'slot ' || s.kind || ' ' || s.slot || ' belongs to ' || s.tenant_id || ', ' || coalesce(t.status, 'unknown')
         FROM slots s LEFT JOIN tenants t ON t.id = s.tenant_id WHERE s.tenant_id IS NOT NULL
            AND coalesce(t.status, '') NOT IN ('provisioning', 'active', 'suspended', 'deprovisioning')",
        "SELECT 'slot ' || s.kind || ' ' || s.slot || ' of ' || t.id || ', ' || t.status || ', expires' FROM slots s
         JOIN tenants t ON t.id = s.tenant_id WHERE t.status IN ('active', 'suspended') AND s.reserved_until IS NOT NULL",
        "SELECT 'slot ' || s.kind || ' ' || s.slot || ' of ' || t.id || ' is in another region' FROM slots s
         JOIN tenants t ON t.id = s.tenant_id WHERE t.region <> s.region",
        "SELECT t.id || ', ' || t.status || ' on ' || t.plan || ', has ' || count(s.slot) || ' slots for ' || r.kind || ' and '
            || r.count || ' resources'
         FROM tenants t JOIN (SELECT tenant_id, kind, count(*) FROM resources
            WHERE state = 'present' AND kind IN ('database', 'bucket', 'namespace') GROUP BY 1, 2) r ON r.tenant_id = t.id
         LEFT JOIN slots s ON s.tenant_id = t.id AND s.kind = r.kind
         WHERE t.status IN ('active', 'suspended') AND t.plan <> 'starter'
         GROUP BY t.id, r.kind, r.count HAVING count(s.slot) <> r.count",
    ]),
    ("resources_agree_with_the_status", &[
        "SELECT r.id || ' (' || r.kind || ') of ' || t.id || ', ' || t.status || ', is ' || r.state
         FROM resources r JOIN tenants t ON t.id = r.tenant_id
         WHERE t.status IN ('pending', 'deprovisioned') AND r.state <> 'absent'",
        "SELECT r.id || ' (' || r.kind || ') of ' || t.id || ', ' || t.status || ', is ' || r.state
         FROM resources r JOIN tenants t ON t.id = r.tenant_id
         WHERE r.state IN ('creating', 'removing') AND NOT EXISTS (SELECT FROM operations o
            WHERE o.tenant_id = t.id AND o.state NOT IN ('succeeded', 'rolled_back', 'cancelled'))",
        "SELECT r.tenant_id || ' has ' || count(*) || ' resources for the step ' || r.step_key FROM resources r
         WHERE r.state = 'present' GROUP BY r.tenant_id, r.step_key HAVING count(*) > 1",
    ]),
    ("a_request_creates_one_tenant", &["
        SELECT count(*) || ' tenants are named ' || name FROM tenants WHERE name IS NOT NULL
        GROUP BY name HAVING count(*) > 1"]),
    ("personal_rows_of_deleted_tenants_are_gone", &["
        SELECT t.id || ' has rows in ' || kept.name FROM tenants t JOIN (
            SELECT 'members' AS name, tenant_id FROM members UNION ALL SELECT 'invitations', tenant_id FROM invitations
            UNION ALL SELECT 'credentials', tenant_id FROM credentials UNION ALL SELECT 'configs', tenant_id FROM configs
            UNION ALL SELECT 'api_keys', tenant_id FROM api_keys UNION ALL SELECT 'sign_in_codes', tenant_id FROM sign_in_codes
            UNION ALL SELECT 'rotations', tenant_id FROM rotations
            UNION ALL SELECT 'customers', tenant_id FROM customers WHERE sealed IS NOT NULL
            UNION ALL SELECT 'tenants', id FROM tenants WHERE name IS NOT NULL OR slug IS NOT NULL OR labels <> '{}'
        ) kept ON kept.tenant_id = t.id WHERE t.status = 'deprovisioned'"]),
];

const CODES: &str =
    "SELECT DISTINCT error ->> 'code' FROM (SELECT error FROM steps UNION ALL SELECT error FROM operations
    UNION ALL SELECT last_error FROM tenants) e WHERE error ->> 'code' IS NOT NULL";

/// Runs the queries.
pub async fn check(ground: &Ground) -> Vec<Checked> {
    let mut all = Vec::new();
    for (name, queries) in INVARIANTS {
        let mut faults = Vec::new();
        for query in queries {
            faults.extend(ground.registry.rows(query).await.iter().map(|row| row.get::<String>(0)));
        }
        all.push(Checked { name, faults });
    }
    all
}

/// Codes of errors that have no page.
pub async fn unlisted_codes(ground: &Ground) -> Vec<String> {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    let pages = std::fs::read_dir(pages).into_iter().flatten().flatten();
    let listed: BTreeSet<String> =
        pages.filter_map(|page| Some(page.path().file_stem()?.to_str()?.to_owned())).collect();
    let used = ground.registry.rows(CODES).await.into_iter().map(|row| row.get::<String>(0));
    // A superseded operation has no error of a provider or a request.
    used.filter(|code| !listed.contains(code) && code != "superseded").collect()
}
