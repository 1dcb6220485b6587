-- Devices and their measurements, in the style of golang-migrate. Written for these tests.
BEGIN;
CREATE TABLE "Devices" (
    tenant_id text NOT NULL,
    "serial no" text NOT NULL,
    kind "char" NOT NULL DEFAULT 'x',
    mac macaddr8,
    net cidr,
    config jsonb NOT NULL DEFAULT '{"on": true}',
    firmware bytea,
    installed date,
    "order" integer,
    PRIMARY KEY (tenant_id, "serial no")
);
CREATE TABLE measurements (
    tenant_id text NOT NULL,
    device text NOT NULL,
    no bigint NOT NULL,
    at timestamp NOT NULL DEFAULT '2026-01-01',
    celsius float8,
    volts numeric(8, 3)[],
    raw bit varying,
    shape box,
    track path,
    around circle,
    along lseg,
    line line,
    PRIMARY KEY (tenant_id, device, no),
    FOREIGN KEY (tenant_id, device) REFERENCES "Devices" ON DELETE CASCADE
) PARTITION BY HASH (tenant_id);
CREATE TABLE measurements_0 PARTITION OF measurements FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE measurements_1 PARTITION OF measurements FOR VALUES WITH (MODULUS 2, REMAINDER 1);
COMMIT;
