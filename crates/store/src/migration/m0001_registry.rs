//! Migration 1: the whole registry. Frozen.
//!
//! SQLite keeps `jsonb` and `timestamptz` columns as text (timestamps with six fractional digits and `Z`, so that
//! text order is time order). There are no foreign keys: rows outlive what they name (tombstones, audit, history).

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, boolean, integer, json_binary, json_binary_null, text, text_null,
    timestamp_with_time_zone as at, timestamp_with_time_zone_null as at_null,
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in lifecycle().into_iter().chain(facts()).chain(access()).chain(built_in()) {
            manager.create_table(table).await?;
        }
        for index in INDEXES {
            manager.get_connection().execute_unprepared(index).await?;
        }
        manager.get_connection().execute_unprepared("INSERT INTO runner (id, epoch) VALUES (1, 0)").await?;
        Ok(())
    }
}

/// Valid on both databases. Names say table and columns.
const INDEXES: &[&str] = &[
    "CREATE UNIQUE INDEX tenants_name_mac ON tenants (name_mac) WHERE status <> 'deprovisioned'",
    "CREATE INDEX tenants_status ON tenants (status, id)",
    "CREATE UNIQUE INDEX operations_one_unfinished ON operations (tenant_id)
        WHERE parent_id IS NULL AND state NOT IN ('succeeded', 'rolled_back', 'cancelled')",
    "CREATE INDEX operations_unfinished ON operations (id)
        WHERE state NOT IN ('succeeded', 'rolled_back', 'cancelled')",
    "CREATE INDEX operations_parent ON operations (parent_id) WHERE parent_id IS NOT NULL",
    "CREATE INDEX operations_tenant ON operations (tenant_id, id)",
    "CREATE INDEX signals_waiting ON signals (operation_id) WHERE NOT applied",
    "CREATE INDEX resources_tenant ON resources (tenant_id)",
    "CREATE UNIQUE INDEX resources_name ON resources (provider, name) WHERE state <> 'absent'",
    "CREATE INDEX events_unsealed ON events (id) WHERE seq IS NULL",
    "CREATE INDEX events_tenant ON events (tenant_id, id)",
    "CREATE INDEX audit_unsealed ON audit (id) WHERE seq IS NULL",
    "CREATE INDEX audit_tenant ON audit (tenant_id, id)",
    "CREATE UNIQUE INDEX members_email ON members (tenant_id, email_mac)",
    "CREATE INDEX invitations_tenant ON invitations (tenant_id)",
    "CREATE INDEX customers_tenant ON customers (tenant_id)",
    "CREATE INDEX subscriptions_tenant ON subscriptions (tenant_id)",
    "CREATE INDEX invoices_tenant ON invoices (tenant_id)",
    "CREATE UNIQUE INDEX invoices_period ON invoices (subscription_id, period_start)",
];

fn table(name: &'static str, columns: Vec<ColumnDef>) -> TableCreateStatement {
    let mut table = Table::create();
    table.table(name);
    for column in columns {
        table.col(column);
    }
    table
}

fn id() -> ColumnDef {
    text("id").primary_key().take()
}

fn one_of(column: &'static str, words: &[&'static str]) -> Expr {
    Expr::col(column).is_in(words.iter().copied())
}

fn lifecycle() -> Vec<TableCreateStatement> {
    let tenants = table(
        "tenants",
        vec![
            id(),
            text_null("slug"),
            text("slug_mac").unique_key().take(),
            text_null("name"),
            text("name_mac"),
            text("plan"),
            text("template"),
            integer("template_version"),
            text("status"),
            text("region"),
            text("locale"),
            big_integer("version"),
            json_binary("labels"),
            text_null("admin_sealed"),
            json_binary_null("last_error"),
            at("created_at"),
            at_null("activated_at"),
            at_null("suspended_at"),
            at_null("deprovisioned_at"),
        ],
    )
    .check(one_of(
        "status",
        &["pending", "provisioning", "active", "suspended", "deprovisioning", "deprovisioned"],
    ))
    .take();
    let operations = table(
        "operations",
        vec![
            id(),
            text("tenant_id"),
            text("kind"),
            text_null("parent_id"),
            text("state"),
            big_integer("version"),
            big_integer("epoch"),
            json_binary("input"),
            json_binary_null("error"),
            text_null("error_step"),
            boolean("cancelled"),
            at("created_at"),
            at("updated_at"),
            at_null("finished_at"),
            at_null("expected_by"),
            boolean("stuck"),
            at_null("wake_at"),
            boolean("idle"),
        ],
    )
    .check(one_of(
        "state",
        &["running", "paused", "rolling_back", "needs_attention", "succeeded", "rolled_back", "cancelled"],
    ))
    .take();
    let steps = table(
        "steps",
        vec![
            text("operation_id"),
            text("key"),
            integer("position"),
            text("kind"),
            text("provider"),
            json_binary("needs"),
            json_binary("policy"),
            json_binary("input"),
            text("state"),
            integer("attempts"),
            integer("interruptions"),
            at_null("due_at"),
            at_null("started_at"),
            at_null("finished_at"),
            json_binary("output"),
            json_binary_null("error"),
            boolean("uncertain"),
            json_binary_null("note"),
            text_null("child_id"),
        ],
    )
    .primary_key(Index::create().col("operation_id").col("key"))
    .check(one_of(
        "state",
        &[
            "pending",
            "running",
            "retrying",
            "waiting",
            "done",
            "skipped",
            "failed",
            "undo_pending",
            "undoing",
            "undone",
            "undo_failed",
        ],
    ))
    .take();
    let signals = table(
        "signals",
        vec![id(), text("operation_id"), json_binary("signal"), text("by"), at("at"), boolean("applied")],
    );
    let resources = table(
        "resources",
        vec![
            id(),
            text("tenant_id"),
            text("kind"),
            text("provider"),
            text("step_key"),
            text("name"),
            text("claim"),
            big_integer("generation"),
            text("state"),
            json_binary("outputs"),
            text("operation_id"),
            at("created_at"),
            at("updated_at"),
        ],
    )
    .check(one_of("state", &["creating", "present", "removing", "absent"]))
    .take();
    let runner =
        table("runner", vec![integer("id").primary_key().take(), big_integer("epoch"), text_null("keyring")])
            .check(Expr::col("id").eq(1))
            .take();
    vec![tenants, operations, steps, signals, resources, runner]
}

fn facts() -> Vec<TableCreateStatement> {
    let events = table(
        "events",
        vec![
            id(),
            big_integer_null("seq").unique_key().take(),
            text_null("tenant_id"),
            text("type"),
            json_binary("data"),
            text_null("sealed"),
            text_null("operation_id"),
            at("at"),
        ],
    );
    let audit = table(
        "audit",
        vec![
            id(),
            big_integer_null("seq").unique_key().take(),
            text_null("tenant_id"),
            text("actor"),
            text("action"),
            text("target"),
            json_binary("data"),
            text_null("sealed"),
            text_null("request_id"),
            at("at"),
            text_null("hash"),
        ],
    );
    let audit_heads = table(
        "audit_heads",
        vec![big_integer("seq").primary_key().take(), text("hash"), text("signature"), at("at")],
    );
    vec![events, audit, audit_heads]
}

fn access() -> Vec<TableCreateStatement> {
    let idempotency_keys = table(
        "idempotency_keys",
        vec![
            text("principal"),
            text("key_hash"),
            text("body_hash"),
            json_binary("answer"),
            text_null("tenant_id"),
            at("created_at"),
        ],
    )
    .primary_key(Index::create().col("principal").col("key_hash"))
    .take();
    let api_keys = table(
        "api_keys",
        vec![
            id(),
            text("hash").unique_key().take(),
            text("name"),
            json_binary("scopes"),
            text_null("tenant_id"),
            at("created_at"),
            at_null("expires_at"),
            at_null("revoked_at"),
        ],
    );
    let credentials = table(
        "credentials",
        vec![
            text("operation_id"),
            text("name"),
            text("tenant_id"),
            text_null("sealed"),
            at("created_at"),
            at_null("claimed_at"),
        ],
    )
    .primary_key(Index::create().col("operation_id").col("name"))
    .take();
    vec![idempotency_keys, api_keys, credentials]
}

/// Tables of the providers that live in the registry.
fn built_in() -> Vec<TableCreateStatement> {
    let members = table(
        "members",
        vec![
            id(),
            text("tenant_id"),
            text("resource_id"),
            text("email_mac"),
            text("sealed"),
            text("role"),
            text("state"),
            text_null("password_hash"),
            boolean("must_change_password"),
            at("created_at"),
        ],
    )
    .check(one_of("state", &["invited", "active"]))
    .take();
    let invitations = table(
        "invitations",
        vec![
            id(),
            text("tenant_id"),
            text("member_id"),
            text("token_hash").unique_key().take(),
            text("role"),
            at("expires_at"),
            at_null("accepted_at"),
            at("created_at"),
        ],
    );
    let sign_in_codes = table(
        "sign_in_codes",
        vec![
            text("hash").primary_key().take(),
            text("tenant_id"),
            text("member_id"),
            text("purpose"),
            at("expires_at"),
            at_null("used_at"),
        ],
    );
    let configs = table(
        "configs",
        vec![
            text("tenant_id").primary_key().take(),
            text("namespace"),
            text("resource_id"),
            json_binary("flags"),
            json_binary("settings"),
            at("updated_at"),
        ],
    );
    let customers = table(
        "customers",
        vec![
            id(),
            text("tenant_id"),
            text("resource_id"),
            text_null("sealed"),
            text("currency"),
            at("created_at"),
        ],
    );
    let subscriptions = table(
        "subscriptions",
        vec![
            id(),
            text("tenant_id"),
            text("customer_id"),
            text("plan"),
            text("billing_cycle"),
            text("state"),
            big_integer("generation"),
            big_integer("amount"),
            text("currency"),
            at("current_period_start"),
            at("current_period_end"),
            at("created_at"),
            at_null("cancelled_at"),
        ],
    )
    .check(one_of("state", &["active", "cancelled"]))
    .take();
    let invoices = table(
        "invoices",
        vec![
            id(),
            text("tenant_id"),
            text("subscription_id"),
            text("number"),
            big_integer("amount"),
            text("currency"),
            json_binary("lines"),
            at("period_start"),
            at("period_end"),
            text("state"),
            at("issued_at"),
        ],
    )
    .check(one_of("state", &["open", "paid", "void"]))
    .take();
    vec![members, invitations, sign_in_codes, configs, customers, subscriptions, invoices]
}
