INSERT INTO notes VALUES ('WORD', NULL), ('WORD', NULL), (NULL, ''), (NULL, NULL);
INSERT INTO kinds (n, f, r, at, ts, d, t, tz, took, raw, js, jb, tags, grid, span, times, spans, p, ps, m, pos, b, vb, ip, net, mac, words,
                   query, c, v, cash, place, shape, u, o, rel, nm, ch, lsn, flag, jp, plain)
VALUES (('1' || repeat('7', 999) || '.' || repeat('3', 500))::numeric, 'NaN', '-Infinity', 'infinity', '-infinity', '0044-03-15 BC',
        '24:00', '23:59:59.999999-07', '1 year -2 mons 3 days -04:05:06.789', '\x00ff5c2e', '{"b": 1,  "a": null}', '{"b": 1, "a": [null, "\u00fc"]}',
        ARRAY['', NULL, 'a,b', '"', '\N', '{}', 'NULL', E'\n'], '[0:1][2:3]={{1,2},{3,NULL}}', '[1,5)', '(,"2026-01-01 00:00+00"]',
        '{[1,2),(3,)}', ROW (NULL, ''), ARRAY[ROW (1, '(",")'), NULL]::pair[], 'it''s "ok"', 0.1, B'10101', B'', '::1/64',
        '10.0.0.0/8', '08:00:2b:01:02:03', 'a:1 ''it''''s'':2', '''fat'' & ( rat | !cat )', 'ab ', 'ab ', -1234.56, '(1,-2)', '[(0,0),(1e300,1)]',
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 4294967295, 'people', 'WORD', '\001', 'FFFFFFFF/FFFFFFFF', true, '$."a"[*] ? (@ > 1)', ''),
       ('NaN', 5e-324, 3.4028235e38, '-infinity', '294276-12-31 23:59:59.999999', 'infinity', '00:00', '00:00+15:59', '-178000000 years',
        '', '"\u0000"', 'null', '{}', '{}', 'empty', '(,)', '{}', ROW (7, '"\')::pair, '{}', 'Größe, 漢', 1e-1000, NULL, NULL, NULL, NULL, NULL, '', '', '', '',
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
DO $$ BEGIN
    UPDATE kinds SET x = '<a>&lt;</a>text' WHERE flag;
EXCEPTION WHEN undefined_column THEN NULL;
END $$;
INSERT INTO "_Odd ""name"", 🎉" VALUES (1, 'a
\.
b', '\.', E'\\N\r\n\t\b', '"', ',');
INSERT INTO nothing SELECT FROM generate_series(1, 2);
INSERT INTO computed DEFAULT VALUES;
INSERT INTO dropped VALUES (1, '\.'), (NULL, NULL);
INSERT INTO quick VALUES (1);
INSERT INTO wide (c1, c1600) VALUES (1, 1600), (NULL, NULL);
INSERT INTO people VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12'),
                          ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12');
WITH hen AS (INSERT INTO hens VALUES (1, 1)) INSERT INTO eggs VALUES (1, 1);
INSERT INTO later VALUES (1, 2), (2, 1);
INSERT INTO animals (name) VALUES ('WORD');
INSERT INTO cats (name, lives) VALUES ('a', 9), ('b', 7);
CREATE TABLE events_2027 PARTITION OF events FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
INSERT INTO events VALUES ('2026-05-01', 'a'), ('2027-05-01', 'b'), ('1999-05-01', '');
INSERT INTO members VALUES ('TENANT', 1), ('another', 2), (NULL, 3);
INSERT INTO meters VALUES (5, 1);
INSERT INTO lines (qty) VALUES (1), (2), (NULL);
SELECT nextval('tickets'), nextval('tickets');
REFRESH MATERIALIZED VIEW sums;
ALTER TABLE older DROP CONSTRAINT natural_number, DROP CONSTRAINT of_boss;
INSERT INTO older VALUES (-1, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a00');
ALTER TABLE older ADD CONSTRAINT natural_number CHECK (n > 0) NOT VALID,
    ADD CONSTRAINT of_boss FOREIGN KEY (boss) REFERENCES people DEFERRABLE INITIALLY DEFERRED NOT VALID;
SELECT nextval('around_seq') FROM generate_series(1, 3);
SELECT CASE WHEN 'WORD' = 'other' THEN nextval('fresh_seq') END;
SELECT setval('reset_seq', 3, false);
INSERT INTO counted SELECT FROM generate_series(1, 2);
ALTER DOMAIN age DROP CONSTRAINT natural_age;
INSERT INTO ages VALUES (-1, '{-2}');
ALTER DOMAIN age ADD CONSTRAINT natural_age CHECK (VALUE > 0) NOT VALID;
