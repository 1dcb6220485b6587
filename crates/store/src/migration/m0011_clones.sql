-- Tenants that are clones of others. Frozen.
ALTER TABLE "tenants" ADD COLUMN "cloned_from" text;
