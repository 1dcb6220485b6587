CREATE TABLE results (
    tenant_id text NOT NULL,
    sample bigint NOT NULL,
    "Odd "" name, 🎉" text,
    value numeric NOT NULL DEFAULT 'NaN',
    squared double precision GENERATED ALWAYS AS (sample::double precision * sample) STORED,
    PRIMARY KEY (tenant_id, sample),
    FOREIGN KEY (tenant_id, sample) REFERENCES samples ON DELETE CASCADE
);
