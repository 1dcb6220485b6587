-- The whole registry. Frozen.
CREATE TABLE "tenants" (
    "id" text NOT NULL PRIMARY KEY,
    "slug" text,
    "slug_mac" text NOT NULL UNIQUE,
    "name" text,
    "name_mac" text NOT NULL,
    "plan" text NOT NULL,
    "template" text NOT NULL,
    "template_version" integer NOT NULL,
    "status" text NOT NULL,
    "region" text NOT NULL,
    "locale" text NOT NULL,
    "version" bigint NOT NULL,
    "labels" jsonb NOT NULL,
    "admin_sealed" text,
    "last_error" jsonb,
    "created_at" timestamptz NOT NULL,
    "activated_at" timestamptz,
    "suspended_at" timestamptz,
    "deprovisioned_at" timestamptz,
    CHECK ("status" IN ('pending', 'provisioning', 'active', 'suspended', 'deprovisioning', 'deprovisioned'))
);
CREATE TABLE "operations" (
    "id" text NOT NULL PRIMARY KEY,
    "tenant_id" text NOT NULL,
    "kind" text NOT NULL,
    "parent_id" text,
    "state" text NOT NULL,
    "version" bigint NOT NULL,
    "epoch" bigint NOT NULL,
    "input" jsonb NOT NULL,
    "error" jsonb,
    "error_step" text,
    "cancelled" boolean NOT NULL,
    "created_at" timestamptz NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "finished_at" timestamptz,
    "expected_by" timestamptz,
    "stuck" boolean NOT NULL,
    "wake_at" timestamptz,
    "idle" boolean NOT NULL,
    CHECK ("state" IN (
        'running', 'paused', 'rolling_back', 'needs_attention',
        'succeeded', 'rolled_back', 'cancelled'
    ))
);
CREATE TABLE "steps" (
    "operation_id" text NOT NULL,
    "key" text NOT NULL,
    "position" integer NOT NULL,
    "kind" text NOT NULL,
    "provider" text NOT NULL,
    "needs" jsonb NOT NULL,
    "policy" jsonb NOT NULL,
    "input" jsonb NOT NULL,
    "state" text NOT NULL,
    "attempts" integer NOT NULL,
    "interruptions" integer NOT NULL,
    "due_at" timestamptz,
    "started_at" timestamptz,
    "finished_at" timestamptz,
    "output" jsonb NOT NULL,
    "error" jsonb,
    "uncertain" boolean NOT NULL,
    "note" jsonb,
    "child_id" text,
    PRIMARY KEY ("operation_id", "key"),
    CHECK ("state" IN (
        'pending', 'running', 'retrying', 'waiting', 'done', 'skipped',
        'failed', 'undo_pending', 'undoing', 'undone', 'undo_failed'
    ))
);
CREATE TABLE "signals" (
    "id" text NOT NULL PRIMARY KEY,
    "operation_id" text NOT NULL,
    "signal" jsonb NOT NULL,
    "by" text NOT NULL,
    "at" timestamptz NOT NULL,
    "applied" boolean NOT NULL
);
CREATE TABLE "resources" (
    "id" text NOT NULL PRIMARY KEY,
    "tenant_id" text NOT NULL,
    "kind" text NOT NULL,
    "provider" text NOT NULL,
    "step_key" text NOT NULL,
    "name" text NOT NULL,
    "claim" text NOT NULL,
    "generation" bigint NOT NULL,
    "state" text NOT NULL,
    "outputs" jsonb NOT NULL,
    "operation_id" text NOT NULL,
    "created_at" timestamptz NOT NULL,
    "updated_at" timestamptz NOT NULL,
    CHECK ("state" IN ('creating', 'present', 'removing', 'absent'))
);
CREATE TABLE "runner" (
    "id" integer NOT NULL PRIMARY KEY,
    "epoch" bigint NOT NULL,
    "keyring" text,
    CHECK ("id" = 1)
);
CREATE TABLE "events" (
    "id" text NOT NULL PRIMARY KEY,
    "seq" bigint UNIQUE,
    "tenant_id" text,
    "type" text NOT NULL,
    "data" jsonb NOT NULL,
    "sealed" text,
    "operation_id" text,
    "at" timestamptz NOT NULL
);
CREATE TABLE "audit" (
    "id" text NOT NULL PRIMARY KEY,
    "seq" bigint UNIQUE,
    "tenant_id" text,
    "actor" text NOT NULL,
    "action" text NOT NULL,
    "target" text NOT NULL,
    "data" jsonb NOT NULL,
    "sealed" text,
    "request_id" text,
    "at" timestamptz NOT NULL,
    "hash" text
);
CREATE TABLE "audit_heads" (
    "seq" bigint NOT NULL PRIMARY KEY,
    "hash" text NOT NULL,
    "signature" text NOT NULL,
    "at" timestamptz NOT NULL
);
CREATE TABLE "idempotency_keys" (
    "principal" text NOT NULL,
    "key_hash" text NOT NULL,
    "body_hash" text NOT NULL,
    "answer" jsonb NOT NULL,
    "tenant_id" text,
    "created_at" timestamptz NOT NULL,
    PRIMARY KEY ("principal", "key_hash")
);
CREATE TABLE "api_keys" (
    "id" text NOT NULL PRIMARY KEY,
    "hash" text NOT NULL UNIQUE,
    "name" text NOT NULL,
    "scopes" jsonb NOT NULL,
    "tenant_id" text,
    "created_at" timestamptz NOT NULL,
    "expires_at" timestamptz,
    "revoked_at" timestamptz
);
CREATE TABLE "credentials" (
    "operation_id" text NOT NULL,
    "name" text NOT NULL,
    "tenant_id" text NOT NULL,
    "sealed" text,
    "created_at" timestamptz NOT NULL,
    "claimed_at" timestamptz,
    PRIMARY KEY ("operation_id", "name")
);
CREATE TABLE "members" (
    "id" text NOT NULL PRIMARY KEY,
    "tenant_id" text NOT NULL,
    "resource_id" text NOT NULL,
    "email_mac" text NOT NULL,
    "sealed" text NOT NULL,
    "role" text NOT NULL,
    "state" text NOT NULL,
    "password_hash" text,
    "must_change_password" boolean NOT NULL,
    "created_at" timestamptz NOT NULL,
    CHECK ("state" IN ('invited', 'active'))
);
CREATE TABLE "invitations" (
    "id" text NOT NULL PRIMARY KEY,
    "tenant_id" text NOT NULL,
    "member_id" text NOT NULL,
    "token_hash" text NOT NULL UNIQUE,
    "role" text NOT NULL,
    "expires_at" timestamptz NOT NULL,
    "accepted_at" timestamptz,
    "created_at" timestamptz NOT NULL
);
CREATE TABLE "sign_in_codes" (
    "hash" text NOT NULL PRIMARY KEY,
    "tenant_id" text NOT NULL,
    "member_id" text NOT NULL,
    "purpose" text NOT NULL,
    "expires_at" timestamptz NOT NULL,
    "used_at" timestamptz
);
CREATE TABLE "configs" (
    "tenant_id" text NOT NULL PRIMARY KEY,
    "namespace" text NOT NULL,
    "resource_id" text NOT NULL,
    "flags" jsonb NOT NULL,
    "settings" jsonb NOT NULL,
    "updated_at" timestamptz NOT NULL
);
CREATE TABLE "customers" (
    "id" text NOT NULL PRIMARY KEY,
    "tenant_id" text NOT NULL,
    "resource_id" text NOT NULL,
    "sealed" text,
    "currency" text NOT NULL,
    "created_at" timestamptz NOT NULL
);
CREATE TABLE "subscriptions" (
    "id" text NOT NULL PRIMARY KEY,
    "tenant_id" text NOT NULL,
    "customer_id" text NOT NULL,
    "plan" text NOT NULL,
    "billing_cycle" text NOT NULL,
    "state" text NOT NULL,
    "generation" bigint NOT NULL,
    "amount" bigint NOT NULL,
    "currency" text NOT NULL,
    "current_period_start" timestamptz NOT NULL,
    "current_period_end" timestamptz NOT NULL,
    "created_at" timestamptz NOT NULL,
    "cancelled_at" timestamptz,
    CHECK ("state" IN ('active', 'cancelled'))
);
CREATE TABLE "invoices" (
    "id" text NOT NULL PRIMARY KEY,
    "tenant_id" text NOT NULL,
    "subscription_id" text NOT NULL,
    "number" text NOT NULL,
    "amount" bigint NOT NULL,
    "currency" text NOT NULL,
    "lines" jsonb NOT NULL,
    "period_start" timestamptz NOT NULL,
    "period_end" timestamptz NOT NULL,
    "state" text NOT NULL,
    "issued_at" timestamptz NOT NULL,
    CHECK ("state" IN ('open', 'paid', 'void'))
);
CREATE UNIQUE INDEX tenants_name_mac ON tenants (name_mac) WHERE status <> 'deprovisioned';
CREATE INDEX tenants_status ON tenants (status, id);
CREATE UNIQUE INDEX operations_one_unfinished ON operations (tenant_id)
    WHERE parent_id IS NULL AND state NOT IN ('succeeded', 'rolled_back', 'cancelled');
CREATE INDEX operations_unfinished ON operations (id)
    WHERE state NOT IN ('succeeded', 'rolled_back', 'cancelled');
CREATE INDEX operations_parent ON operations (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX operations_tenant ON operations (tenant_id, id);
CREATE INDEX signals_waiting ON signals (operation_id) WHERE NOT applied;
CREATE INDEX resources_tenant ON resources (tenant_id);
CREATE UNIQUE INDEX resources_name ON resources (provider, name) WHERE state <> 'absent';
CREATE INDEX events_unsealed ON events (id) WHERE seq IS NULL;
CREATE INDEX events_tenant ON events (tenant_id, id);
CREATE INDEX audit_unsealed ON audit (id) WHERE seq IS NULL;
CREATE INDEX audit_tenant ON audit (tenant_id, id);
CREATE UNIQUE INDEX members_email ON members (tenant_id, email_mac);
CREATE INDEX invitations_tenant ON invitations (tenant_id);
CREATE INDEX customers_tenant ON customers (tenant_id);
CREATE INDEX subscriptions_tenant ON subscriptions (tenant_id);
CREATE INDEX invoices_tenant ON invoices (tenant_id);
CREATE UNIQUE INDEX invoices_period ON invoices (subscription_id, period_start);
INSERT INTO runner (id, epoch) VALUES (1, 0);
