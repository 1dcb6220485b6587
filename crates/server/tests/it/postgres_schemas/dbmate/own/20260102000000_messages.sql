-- migrate:up
CREATE TABLE messages (
    tenant_id text NOT NULL,
    ticket bigint NOT NULL,
    sent timestamptz NOT NULL,
    body text,
    source xml,
    size oid,
    position pg_lsn,
    PRIMARY KEY (tenant_id, ticket, sent),
    FOREIGN KEY (tenant_id, ticket) REFERENCES tickets ON DELETE CASCADE
) PARTITION BY RANGE (sent);
CREATE TABLE messages_past PARTITION OF messages FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00');
CREATE TABLE messages_now PARTITION OF messages FOR VALUES FROM ('2020-01-01 00:00:00+00') TO (MAXVALUE);
CREATE TABLE audits (
    tenant_id text NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz DEFAULT clock_timestamp(),
    what text,
    PRIMARY KEY (tenant_id, id)
);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $audit$
BEGIN
    INSERT INTO audits (tenant_id, what) VALUES (NEW.tenant_id, TG_OP || ' of ' || NEW.subject);
    RETURN NULL;
END;
$audit$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON tickets FOR EACH ROW EXECUTE FUNCTION audit();

-- migrate:down
DROP TRIGGER audit ON tickets;
DROP FUNCTION audit;
DROP TABLE audits, messages;
