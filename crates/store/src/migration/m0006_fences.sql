-- What fences are to deny, and what they do. Frozen.
ALTER TABLE "tenants" ADD COLUMN "denied" text;
ALTER TABLE "tenants" ADD COLUMN "fenced" text;
CREATE INDEX tenants_unfenced ON tenants (id) WHERE denied IS DISTINCT FROM fenced;
