-- Archives of what tenants have, by tenant and by age. Frozen.
CREATE TABLE "archives" (
    "id" text NOT NULL,
    "tenant_id" text NOT NULL,
    "operation_id" text NOT NULL,
    "purpose" text NOT NULL,
    "size" bigint NOT NULL,
    "sha256" text NOT NULL,
    "content" jsonb NOT NULL,
    "verified" jsonb,
    "created_at" timestamptz NOT NULL,
    "expires_at" timestamptz NOT NULL,
    PRIMARY KEY ("id")
);
CREATE INDEX archives_tenant ON archives (tenant_id, id);
CREATE INDEX archives_expiry ON archives (expires_at);
