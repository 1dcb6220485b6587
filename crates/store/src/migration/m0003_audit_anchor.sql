-- The anchor of the audit chain, and the cuts that were found by it. Frozen.
CREATE TABLE "audit_anchor" (
    "id" integer NOT NULL PRIMARY KEY,
    "seq" bigint NOT NULL,
    "hash" text NOT NULL,
    "pending" jsonb NOT NULL,
    "at" timestamptz NOT NULL
);
CREATE TABLE "audit_cuts" (
    "anchored_seq" bigint NOT NULL,
    "anchored_hash" text NOT NULL,
    "anchored_at" timestamptz NOT NULL,
    "found_seq" bigint NOT NULL,
    "found_at" timestamptz NOT NULL,
    "accepted_at" timestamptz,
    "accepted_reason" text,
    PRIMARY KEY ("anchored_seq", "anchored_hash")
);
