-- Reports of the isolation check, as they were signed. Frozen.
CREATE TABLE "isolation_reports" (
    "id" text NOT NULL,
    "report" text NOT NULL,
    "signature" text NOT NULL,
    "at" timestamptz NOT NULL,
    PRIMARY KEY ("id")
);
