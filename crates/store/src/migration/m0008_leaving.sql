-- Certificates of deletion; operations that end a tenant begin beside the one that they take over from; what has run out
-- is found by its time. Frozen.
CREATE TABLE "certificates" (
    "id" text NOT NULL,
    "seq" bigint NOT NULL,
    "tenant_id" text NOT NULL,
    "certificate" text NOT NULL,
    "signature" text NOT NULL,
    "hash" text NOT NULL,
    "at" timestamptz NOT NULL,
    PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX certificates_seq ON certificates (seq);
CREATE INDEX certificates_tenant ON certificates (tenant_id);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
CREATE INDEX sign_in_codes_expires ON sign_in_codes (expires_at);
DROP INDEX operations_one_unfinished;
CREATE UNIQUE INDEX operations_one_unfinished ON operations
    (tenant_id, (CASE kind WHEN 'erase' THEN 2 WHEN 'offboard' THEN 1 ELSE 0 END))
    WHERE parent_id IS NULL AND state NOT IN ('succeeded', 'rolled_back', 'cancelled');
