-- +goose Up
CREATE TABLE invoices (
    tenant_id text NOT NULL,
    number bigserial,
    subscription_id bigint NOT NULL,
    period billing_period DEFAULT 'week',
    issued date NOT NULL,
    total numeric(30, 2) NOT NULL CHECK (total > -1000000000),
    document bytea,
    PRIMARY KEY (tenant_id, number),
    FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscriptions
);
CREATE TABLE invoice_lines (
    tenant_id text NOT NULL,
    invoice bigint NOT NULL,
    position smallint NOT NULL,
    text text,
    amount numeric,
    PRIMARY KEY (tenant_id, invoice, position),
    FOREIGN KEY (tenant_id, invoice) REFERENCES invoices ON DELETE CASCADE
);
CREATE VIEW open_invoices WITH (security_invoker = true) AS SELECT number, total FROM invoices WHERE total > 0;

-- +goose Down
DROP VIEW open_invoices;
DROP TABLE invoice_lines, invoices;
