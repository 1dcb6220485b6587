-- Uses the extensions of the file before, and one more.
CREATE EXTENSION IF NOT EXISTS "fuzzystrmatch" WITH SCHEMA "public";

ALTER TABLE "members" ADD COLUMN "nickname" citext DEFAULT 'Zoë',
    ADD COLUMN "sound" text GENERATED ALWAYS AS (soundex(name)) STORED;
CREATE INDEX "members_nickname" ON "members" ("tenant_id", "nickname");
CREATE TABLE "public"."words" (
    "tenant_id" text NOT NULL,
    "word" "public"."citext" NOT NULL,
    "meaning" text,
    CONSTRAINT "words_pkey" PRIMARY KEY ("tenant_id", "word")
);
