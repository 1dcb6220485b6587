-- Why tenants are suspended. Frozen.
ALTER TABLE "tenants" ADD COLUMN "suspensions" jsonb NOT NULL DEFAULT '{}';
