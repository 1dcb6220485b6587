CREATE TABLE stock (
    tenant_id text NOT NULL,
    warehouse_id integer NOT NULL,
    article_id bigint NOT NULL,
    amount numeric(20, 6) DEFAULT 0 NOT NULL,
    counted timestamp(0),
    by_day timetz,
    CONSTRAINT stock_pk PRIMARY KEY (tenant_id, warehouse_id, article_id),
    CONSTRAINT stock_warehouse FOREIGN KEY (tenant_id, warehouse_id) REFERENCES warehouses (tenant_id, id),
    CONSTRAINT stock_article FOREIGN KEY (tenant_id, article_id) REFERENCES articles (tenant_id, id) ON UPDATE CASCADE
);

CREATE TABLE movements (
    tenant_id text NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    warehouse_id integer NOT NULL,
    article_id bigint NOT NULL,
    moved tsrange,
    steps int4multirange,
    sign bit(1) DEFAULT B'1',
    source inet,
    CONSTRAINT movements_pk PRIMARY KEY (tenant_id, id),
    CONSTRAINT movements_stock FOREIGN KEY (tenant_id, warehouse_id, article_id) REFERENCES stock
);

CREATE FUNCTION moved_amount(movement uuid) RETURNS numeric LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT amount FROM stock s JOIN movements m USING (tenant_id, warehouse_id, article_id) WHERE m.id = movement;
END;
