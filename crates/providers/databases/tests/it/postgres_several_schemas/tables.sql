CREATE TABLE notes (id text PRIMARY KEY, value text);

CREATE SCHEMA audit;
CREATE SCHEMA "My Schema";
CREATE SCHEMA "größe, 漢 ""🎉""." CREATE TABLE inner_table (id int PRIMARY KEY, "a.b" text);

CREATE TYPE audit.level AS ENUM ('info', 'bad');
CREATE DOMAIN "My Schema".positive AS int CHECK (VALUE > 0);
CREATE DOMAIN audit.age AS int;
CREATE SEQUENCE audit.tickets START 7;
CREATE TABLE audit.log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, level audit.level NOT NULL DEFAULT 'info', what text,
    at timestamptz DEFAULT clock_timestamp()
);
-- The same name as in the main schema, with other columns.
CREATE TABLE audit.notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n "My Schema".positive, ticket bigint DEFAULT nextval('audit.tickets'));
CREATE TABLE "My Schema"."Odd "" table" (id serial PRIMARY KEY, note text REFERENCES notes, "Mixed.Case" text);
CREATE TABLE audit.ages (a audit.age);
ALTER DOMAIN audit.age ADD CONSTRAINT natural_age CHECK (VALUE > 0) NOT VALID;

-- Keys in a circle through three schemas.
CREATE TABLE hens (id int PRIMARY KEY, egg int NOT NULL);
CREATE TABLE audit.eggs (id int PRIMARY KEY, nest int NOT NULL);
CREATE TABLE "My Schema".nests (id int PRIMARY KEY, hen int NOT NULL REFERENCES hens DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE hens ADD FOREIGN KEY (egg) REFERENCES audit.eggs;
ALTER TABLE audit.eggs ADD FOREIGN KEY (nest) REFERENCES "My Schema".nests ON DELETE RESTRICT;

CREATE TABLE audit.events (at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE audit.events_2026 PARTITION OF audit.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE "My Schema".events_more PARTITION OF audit.events DEFAULT;
CREATE TABLE "My Schema".heirs (more text) INHERITS (audit.ages);

CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit.log (what) VALUES (TG_OP || ' ' || TG_TABLE_NAME); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON notes FOR EACH ROW EXECUTE FUNCTION audit.note();
CREATE TRIGGER note AFTER INSERT OR DELETE ON audit.notes FOR EACH ROW EXECUTE FUNCTION audit.note();
CREATE RULE keep AS ON DELETE TO "größe, 漢 ""🎉"".".inner_table DO INSTEAD NOTHING;
CREATE FUNCTION audit.counted() RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM audit.log; END;
CREATE VIEW audit.recent AS SELECT l.what, n.value FROM audit.log l LEFT JOIN notes n ON n.id = l.what;
CREATE MATERIALIZED VIEW "My Schema".sums AS SELECT count(*) AS n FROM audit.log;
