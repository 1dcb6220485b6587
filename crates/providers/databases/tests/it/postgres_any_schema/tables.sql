CREATE TABLE notes (id text, value text);

CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', 'Größe, 漢');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS numeric CHECK (VALUE > 0);
CREATE TABLE kinds (
    n numeric, f float8, r real, at timestamptz, ts timestamp, d date, t time, tz timetz, took interval, raw bytea, js json,
    jb jsonb, tags text[], grid int[][], span int4range, times tstzrange, spans nummultirange, p pair, ps pair[], m mood,
    pos positive, b bit(5), vb bit varying, ip inet, net cidr, mac macaddr, words tsvector, query tsquery, c char(7),
    v varchar(9), cash money, place point, shape path, u uuid, o oid, rel regclass, nm name, ch "char", lsn pg_lsn,
    flag boolean, jp jsonpath, plain text
);
DO $$ BEGIN
    PERFORM '<a/>'::xml;
    ALTER TABLE kinds ADD COLUMN x xml;
EXCEPTION WHEN feature_not_supported THEN NULL;
END $$;

CREATE TABLE "_Odd ""name"", 🎉" ("_c" int, "Mixed, Case" text, "a""b" text, " " text, "value" text, own text);
CREATE TABLE nothing ();
CREATE TABLE computed (one int GENERATED ALWAYS AS (1) STORED);
CREATE TABLE dropped (a int, b int, c text);
ALTER TABLE dropped DROP COLUMN b;
CREATE UNLOGGED TABLE quick (id int PRIMARY KEY);
CREATE RULE keep AS ON DELETE TO quick DO INSTEAD NOTHING;
DO $$ BEGIN
    EXECUTE (SELECT format('CREATE TABLE wide (%s)', string_agg(format('c%s int', n), ', ')) FROM generate_series(1, 1600) n);
END $$;

CREATE TABLE people (id uuid PRIMARY KEY, boss uuid REFERENCES people);
CREATE TABLE hens (id int PRIMARY KEY, egg int NOT NULL);
CREATE TABLE eggs (id int PRIMARY KEY, hen int NOT NULL REFERENCES hens ON DELETE RESTRICT);
ALTER TABLE hens ADD FOREIGN KEY (egg) REFERENCES eggs ON DELETE RESTRICT;
CREATE TABLE later (id int PRIMARY KEY, next int REFERENCES later DEFERRABLE INITIALLY DEFERRED);

CREATE TABLE animals (id serial PRIMARY KEY, name text);
CREATE TABLE cats (lives int) INHERITS (animals);
CREATE TABLE events (at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE events_more PARTITION OF events DEFAULT;

CREATE TABLE members (tenant_id text, id int);
CREATE TABLE meters (tenant_id int, id int);

CREATE SEQUENCE tickets START 7;
CREATE TABLE audit (what text);
CREATE TABLE lines (
    no bigint GENERATED ALWAYS AS IDENTITY (INCREMENT BY -3 START WITH 100 MAXVALUE 100), qty int,
    doubled int GENERATED ALWAYS AS (qty * 2) STORED, touched timestamptz
);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched = clock_timestamp(); RETURN NEW; END $$;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (TG_OP); RETURN NULL; END $$;
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON lines FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER note AFTER INSERT OR DELETE ON lines FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER always AFTER INSERT OR DELETE ON lines FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE lines ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER never AFTER INSERT ON lines FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE lines DISABLE TRIGGER never;
CREATE TRIGGER note AFTER INSERT OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION note();
CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS lines, sum(qty) AS qty FROM lines;

CREATE TABLE older (n int CONSTRAINT whole CHECK (n = n::int), boss uuid);
ALTER TABLE older ADD CONSTRAINT natural_number CHECK (n > 0) NOT VALID,
    ADD CONSTRAINT of_boss FOREIGN KEY (boss) REFERENCES people DEFERRABLE INITIALLY DEFERRED NOT VALID;
