-- The row of the leading process. Frozen.
ALTER TABLE "runner" RENAME TO "leader";
