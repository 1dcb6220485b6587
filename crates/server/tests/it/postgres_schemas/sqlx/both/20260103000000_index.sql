-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS results_value ON results (tenant_id, value);
