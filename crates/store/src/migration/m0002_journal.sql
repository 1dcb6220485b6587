-- The journal is written before anything is deleted, when the key is still needed. Frozen.
ALTER TABLE "erasures" ADD COLUMN "key_kept" boolean NOT NULL DEFAULT FALSE;
