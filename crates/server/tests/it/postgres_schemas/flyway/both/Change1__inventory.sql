-- A warehouse, in the style of Flyway. Written for these tests.
CREATE TABLE warehouses (
    tenant_id text NOT NULL,
    id integer NOT NULL,
    name varchar(100) NOT NULL,
    place point,
    floor polygon,
    shelves integer[][],
    opened date DEFAULT '2000-01-01',
    CONSTRAINT warehouses_pk PRIMARY KEY (tenant_id, id)
);

CREATE TABLE articles (
    tenant_id text NOT NULL,
    id bigint NOT NULL,
    ean char(13),
    title varchar(200) NOT NULL,
    weight real,
    volume double precision,
    dangerous boolean DEFAULT false NOT NULL,
    attributes json,
    sheet xml,
    picture bytea,
    search tsvector GENERATED ALWAYS AS (to_tsvector('simple', title)) STORED,
    CONSTRAINT articles_pk PRIMARY KEY (tenant_id, id),
    CONSTRAINT articles_ean UNIQUE NULLS NOT DISTINCT (tenant_id, ean)
);
CREATE INDEX articles_search ON articles USING gin (search);

CREATE SEQUENCE article_numbers START WITH 500 INCREMENT BY 50 OWNED BY articles.id;
ALTER TABLE articles ALTER COLUMN id SET DEFAULT nextval('article_numbers');
