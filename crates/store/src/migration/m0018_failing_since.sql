-- Since when a step has been failing: the time for which it is retried counts from there. Frozen.
ALTER TABLE "steps" ADD COLUMN "failing_since" timestamptz NULL;
