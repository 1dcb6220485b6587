BEGIN;
--
-- Create model Patient
--
CREATE TABLE "shared_patient" ("tenant_id" text NOT NULL, "id" uuid NOT NULL, "name" varchar(200) NOT NULL, "email" varchar(254) NOT NULL, "allergies" jsonb NOT NULL, "photo" bytea NULL, "address" inet NULL, "hours" tstzrange NULL, "search" tsvector NULL, CONSTRAINT "patient_email" UNIQUE ("tenant_id", "email"), PRIMARY KEY ("tenant_id", "id"));
--
-- Create model Visit
--
CREATE TABLE "shared_visit" ("tenant_id" text NOT NULL, "number" bigint NOT NULL, "patient_id" uuid NOT NULL, "floors" int4range NULL, "grid" integer[][] NULL, "dose" numeric(30, 10) NOT NULL, "took" interval NULL, "confirmed" boolean NULL, "begins" timestamp with time zone NULL, PRIMARY KEY ("tenant_id", "number"));
CREATE INDEX "shared_visi_tenant__49ae7e_idx" ON "shared_visit" ("tenant_id", "patient_id");
COMMIT;
