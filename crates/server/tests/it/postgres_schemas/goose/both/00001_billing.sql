-- A billing product, in the style of goose. Written for these tests.
-- +goose Up
CREATE TYPE billing_period AS ENUM ('day', 'month', 'year');
CREATE DOMAIN cents AS bigint CHECK (VALUE IS NULL OR VALUE >= 0);
CREATE DOMAIN currency AS char(3) NOT NULL DEFAULT 'EUR';

CREATE TABLE customers (
    tenant_id text NOT NULL,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL, -- the legal name; as registered
    email text COLLATE "C",
    vat_id varchar(20),
    balance money,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, email)
);

CREATE TABLE plans (
    tenant_id text NOT NULL,
    code text NOT NULL,
    period billing_period NOT NULL DEFAULT 'month',
    price cents,
    currency currency,
    tiers numeric(12, 4)[] NOT NULL DEFAULT '{}',
    valid daterange NOT NULL DEFAULT 'empty',
    PRIMARY KEY (tenant_id, code)
);

CREATE TABLE subscriptions (
    tenant_id text NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY (START WITH 1000 INCREMENT BY 10),
    customer_id uuid NOT NULL,
    plan text NOT NULL,
    trial interval,
    runs tstzrange,
    quantity integer NOT NULL DEFAULT 1,
    doubled integer GENERATED ALWAYS AS (quantity / 2) STORED,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, customer_id) REFERENCES customers ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, plan) REFERENCES plans (tenant_id, code) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX ON subscriptions (tenant_id, customer_id) INCLUDE (plan);

-- +goose StatementBegin
CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END;
$$;
-- +goose StatementEnd
CREATE TRIGGER updated BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION set_updated_at();

-- +goose Down
DROP TABLE subscriptions, plans, customers;
DROP FUNCTION set_updated_at;
DROP DOMAIN cents, currency;
DROP TYPE billing_period;
