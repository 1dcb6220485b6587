-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX CONCURRENTLY customers_created ON customers (tenant_id, created_at DESC NULLS LAST);
ALTER TYPE billing_period ADD VALUE 'week' BEFORE 'month';

-- +goose Down
DROP INDEX CONCURRENTLY customers_created;
