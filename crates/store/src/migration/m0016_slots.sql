-- Capacity is counted in slots. Frozen.
DROP INDEX places_tenant;
ALTER TABLE "places" RENAME COLUMN "place" TO "slot";
ALTER TABLE "places" RENAME TO "slots";
CREATE INDEX slots_tenant ON slots (tenant_id) WHERE tenant_id IS NOT NULL;
