-- Sessions of tenants' members: one row per sign-in, with hashes of its refresh token. Frozen.
CREATE TABLE "sessions" (
    "id" text NOT NULL PRIMARY KEY,
    "tenant_id" text NOT NULL,
    "member_id" text NOT NULL,
    "method" text NOT NULL,
    "user_agent" text NOT NULL,
    "family_hash" text NOT NULL,
    "token_hash" text NOT NULL,
    "created_at" timestamptz NOT NULL,
    "last_used_at" timestamptz NOT NULL,
    "expires_at" timestamptz NOT NULL,
    "ended_at" timestamptz NULL,
    "end_reason" text NULL
);
CREATE UNIQUE INDEX sessions_family ON sessions (family_hash);
CREATE INDEX sessions_tenant ON sessions (tenant_id, member_id);
CREATE INDEX sessions_expires ON sessions (expires_at);
