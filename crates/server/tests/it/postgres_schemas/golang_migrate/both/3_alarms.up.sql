CREATE TABLE alarms (
    tenant_id text NOT NULL,
    id uuid NOT NULL,
    device text,
    level smallint NOT NULL DEFAULT 0,
    window_ tstzrange NOT NULL DEFAULT 'empty',
    query tsquery,
    vector tsvector,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, device) REFERENCES "Devices"
);
ALTER TABLE "Devices" ADD COLUMN last_alarm uuid;
UPDATE "Devices" SET kind = 'y' WHERE kind = 'x';
ALTER TABLE "Devices" ALTER COLUMN kind DROP DEFAULT;
