-- Fills every table that the session's search path shows with six rows: a plain one, four with the extremes of each
-- type, and one with NULL wherever it may be. A row that a check or a key rejects gets plain values in half of its
-- columns, and then in all. Rows refer to rows of other tables. `fill.tenant` is the tenant's id; a second
-- `fill.round` adds other rows.
DO $fill$
DECLARE
    tenant text := current_setting('fill.tenant');
    round integer := current_setting('fill.round');
    edges jsonb := $json$EDGES$json$;
    place regnamespace := current_schema()::regnamespace;
    todo oid[];
    done oid[] := '{}';
    current_table oid;
    n integer;
    problem text;
    own record;
    key record;
    names text[];
    exprs text[];
    sources text;
    taken smallint[];
    value text;
    choices text[];
    type text;
    base pg_type;
    element pg_type;
    is_plain boolean;
BEGIN
    SELECT array_agg(oid ORDER BY relname) INTO todo FROM pg_class
    WHERE relnamespace = place AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> '_migrations'
        AND has_table_privilege(oid, 'INSERT');
    WHILE cardinality(todo) > 0 LOOP
        -- A table whose references are filled; else one whose references can be left out.
        SELECT t INTO current_table FROM unnest(todo) t, LATERAL (
            SELECT count(*) AS missing, count(*) FILTER (WHERE NOT EXISTS (
                SELECT FROM pg_attribute WHERE attrelid = t AND attnum = ANY (conkey) AND NOT attnotnull)) AS needed
            FROM pg_constraint WHERE conrelid = t AND contype = 'f' AND conparentid = 0 AND confrelid <> t AND confrelid <> ALL (done)
        ) AS refers WHERE needed = 0 ORDER BY missing LIMIT 1;
        IF current_table IS NULL THEN
            RAISE 'tables refer to each other: %', todo::regclass[];
        END IF;
        todo := array_remove(todo, current_table);
        FOR r IN 0..5 LOOP
            n := round * 10 + r;
            problem := NULL;
            FOR attempt IN 0..3 LOOP
                names := '{}'; exprs := '{}'; sources := ''; taken := '{}';
                -- References: the row of the same number.
                FOR key IN SELECT *, row_number() OVER (ORDER BY oid) AS no FROM pg_constraint
                    WHERE conrelid = current_table AND contype = 'f' AND conparentid = 0
                        AND (confrelid = ANY (done) OR confrelid = current_table AND r > 0 AND r < 5) ORDER BY oid
                LOOP
                    CONTINUE WHEN r = 5 AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = current_table
                                                    AND attnum = ANY (key.conkey) AND NOT attnotnull);
                    sources := sources || format(', (SELECT * FROM %s ORDER BY %s OFFSET %s LIMIT 1) AS parent%s',
                        -- Rows of tables that inherit from it are no rows to refer to.
                        (SELECT CASE relkind WHEN 'r' THEN 'ONLY ' ELSE '' END FROM pg_class WHERE oid = key.confrelid) || key.confrelid::regclass,
                        (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                         WHERE attrelid = key.confrelid AND attnum = ANY (key.confkey)),
                        CASE WHEN key.confrelid = current_table THEN 0 ELSE r + round * 6 END, key.no);
                    FOR own IN SELECT here, a.attname AS name, b.attname AS parent_name FROM unnest(key.conkey, key.confkey) pair(here, there)
                        JOIN pg_attribute a ON a.attrelid = current_table AND a.attnum = here
                        JOIN pg_attribute b ON b.attrelid = key.confrelid AND b.attnum = there
                        WHERE here <> ALL (taken)
                    LOOP
                        taken := taken || own.here;
                        names := names || quote_ident(own.name);
                        exprs := exprs || format('parent%s.%I', key.no, own.parent_name);
                    END LOOP;
                END LOOP;
                FOR own IN SELECT a.*, pg_get_expr(adbin, adrelid) AS preset,
                        NOT attnotnull AND EXISTS (SELECT FROM pg_constraint WHERE conrelid = current_table AND contype = 'f'
                                                   AND attnum = ANY (conkey)) AS is_reference,
                        EXISTS (SELECT FROM pg_index WHERE indrelid = current_table AND indisunique AND attnum = ANY (indkey::smallint[])) AS is_unique
                    FROM pg_attribute a LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
                    WHERE attrelid = current_table AND attnum > 0 AND NOT attisdropped AND attnum <> ALL (taken)
                        AND attgenerated = '' AND attidentity = '' ORDER BY attnum
                LOOP
                    CONTINUE WHEN own.preset LIKE 'nextval(%';
                    type := format_type(own.atttypid, own.atttypmod);
                    SELECT * INTO base FROM pg_type WHERE oid = own.atttypid;
                    WHILE base.typtype = 'd' AND NOT (edges ? base.typname) LOOP
                        SELECT * INTO base FROM pg_type WHERE oid = base.typbasetype;
                    END LOOP;
                    SELECT * INTO element FROM pg_type WHERE oid = base.typelem AND base.typcategory = 'A';
                    is_plain := own.is_unique OR r = 0 OR attempt = 3 OR attempt > 0 AND own.attnum % 2 = attempt - 1;
                    choices := CASE
                        WHEN coalesce(element.typtype, base.typtype) = 'e' THEN ARRAY(
                            SELECT enumlabel FROM pg_enum WHERE enumtypid = coalesce(element.oid, base.oid) ORDER BY enumsortorder)
                        WHEN base.typname = 'numeric' AND own.atttypmod > 0 THEN ARRAY['NaN', '0', repeat('9', ((own.atttypmod - 4) >> 16)
                            - ((own.atttypmod - 4) & 65535)) || '.' || repeat('9', (own.atttypmod - 4) & 65535), '-0.00001']
                        ELSE ARRAY(SELECT jsonb_array_elements_text(edges -> coalesce(element.typname, base.typname)))
                    END;
                    IF cardinality(choices) = 0 THEN
                        RAISE 'no values for the type % of %.%', type, current_table::regclass, own.attname;
                    END IF;
                    value := choices[1 + (n + own.attnum) % cardinality(choices)];
                    IF own.attname = 'tenant_id' AND own.atttypid::regtype::text ~ 'text|char|uuid' THEN
                        value := quote_literal(tenant);
                    ELSIF own.is_reference OR r = 5 AND attempt = 0 AND NOT own.attnotnull AND NOT base.typnotnull THEN
                        value := 'NULL';
                    ELSIF element.oid IS NOT NULL THEN
                        type := format_type(base.typelem, own.atttypmod);
                        value := CASE CASE WHEN is_plain THEN 0 ELSE r END
                            WHEN 0 THEN format('ARRAY[%L::%s]', choices[1], type)
                            WHEN 1 THEN format('ARRAY[]::%s[]', type)
                            WHEN 2 THEN format('ARRAY[%s, NULL]', (SELECT string_agg(format('%L::%s', one, type), ', ') FROM unnest(choices) one))
                            WHEN 3 THEN format('ARRAY[ARRAY[%1$L::%3$s, NULL], ARRAY[NULL, %2$L::%3$s]]', choices[1], value, type)
                            ELSE format('(''[-1:0]='' || ARRAY[%L::%3$s, %2$L]::text)::%3$s[]', value, choices[1], type)
                        END;
                    ELSE
                        IF is_plain AND NOT (edges ? ('plain ' || base.typname)) AND base.typtype <> 'e' THEN
                            value := CASE
                                WHEN base.typname IN ('text', 'citext', 'varchar', 'bpchar', 'name') THEN
                                    CASE WHEN own.atttypmod BETWEEN 0 AND 30 THEN n::text ELSE lpad(n::text, 4, '0') || '@example.com' END
                                WHEN base.typcategory = 'N' THEN n::text
                                WHEN base.typcategory = 'B' THEN (n % 2 = 0)::text
                                WHEN base.typname IN ('date', 'timestamp', 'timestamptz') THEN ('2026-01-01'::date + n)::text
                                WHEN base.typname = 'uuid' THEN lpad(n::text, 32, '0')
                                WHEN base.typname IN ('tsrange', 'tstzrange', 'daterange') THEN format('[%1$s, %1$s]', '2026-01-01'::date + n)
                                ELSE choices[1]
                            END;
                        END IF;
                        value := format('%L::%s', value, type);
                    END IF;
                    names := names || quote_ident(own.attname);
                    exprs := exprs || value;
                END LOOP;
                BEGIN
                    IF names = '{}' THEN
                        EXECUTE format('INSERT INTO %s DEFAULT VALUES', current_table::regclass);
                    ELSE
                        EXECUTE format('INSERT INTO %s (%s) SELECT %s FROM (SELECT) AS one%s', current_table::regclass,
                            array_to_string(names, ', '), array_to_string(exprs, ', '), sources);
                    END IF;
                    problem := NULL;
                    EXIT;
                EXCEPTION WHEN data_exception OR integrity_constraint_violation OR invalid_text_representation THEN
                    problem := SQLERRM;
                END;
            END LOOP;
            IF problem IS NOT NULL THEN
                RAISE 'no row % of % is accepted: % (% of %)', n, current_table::regclass, problem, names, exprs;
            END IF;
        END LOOP;
        done := done || current_table;
    END LOOP;
END $fill$;
