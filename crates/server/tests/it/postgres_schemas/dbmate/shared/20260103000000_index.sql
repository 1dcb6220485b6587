-- migrate:up transaction:false
CREATE INDEX CONCURRENTLY tickets_open ON tickets (tenant_id, due) WHERE state <> 'solved';

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY tickets_open;
