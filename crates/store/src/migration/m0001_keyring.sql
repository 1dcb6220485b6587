-- The keyring. Frozen.
CREATE TABLE "tenant_keys" (
    "tenant_id" text NOT NULL PRIMARY KEY,
    "wrapped" text,
    "created_at" timestamptz NOT NULL,
    "destroyed_at" timestamptz
);
CREATE TABLE "erasures" (
    "tenant_id" text NOT NULL PRIMARY KEY,
    "requested_by" text NOT NULL,
    "reason" text NOT NULL,
    "at" timestamptz NOT NULL
);
CREATE TABLE "secrets" (
    "name" text NOT NULL PRIMARY KEY,
    "wrapped" text NOT NULL,
    "created_at" timestamptz NOT NULL
);
