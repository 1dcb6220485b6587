-- Former secrets that are good for a while, by tenant and by their end. Frozen.
CREATE TABLE "rotations" (
    "operation_id" text NOT NULL,
    "resource_id" text NOT NULL,
    "tenant_id" text NOT NULL,
    "until" timestamptz NOT NULL,
    PRIMARY KEY ("operation_id", "resource_id")
);
CREATE INDEX rotations_tenant ON rotations (tenant_id);
CREATE INDEX rotations_resource ON rotations (resource_id);
CREATE INDEX rotations_until ON rotations (until);
