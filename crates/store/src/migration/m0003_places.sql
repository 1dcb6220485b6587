-- Slots of capacity, by which resources are reserved. Frozen.
CREATE TABLE "places" (
    "region" text NOT NULL,
    "kind" text NOT NULL,
    "place" bigint NOT NULL,
    "tenant_id" text,
    "reserved_until" timestamptz,
    PRIMARY KEY ("region", "kind", "place")
);
CREATE INDEX places_tenant ON places (tenant_id) WHERE tenant_id IS NOT NULL;
