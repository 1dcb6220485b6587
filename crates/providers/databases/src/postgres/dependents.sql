-- Objects outside of the schema $1 that DROP SCHEMA … CASCADE would drop with it, one row for each, as PostgreSQL follows
-- dependencies: what depends on an object goes with it, and an object that is part of another one takes that with it.
-- Parts are not listed beside the whole. Extensions and event triggers are in no schema and work in all of them. Temporary
-- objects are left out: their session is ended.
WITH RECURSIVE dropped (class, object, part) AS (
    SELECT 'pg_namespace'::regclass::oid, oid, 0 FROM pg_namespace WHERE nspname = $1
    UNION
    SELECT next.* FROM dropped, LATERAL (
        SELECT classid, objid, objsubid FROM pg_depend
        WHERE refclassid = class AND refobjid = object AND (part = 0 OR refobjsubid = part)
        UNION ALL
        SELECT refclassid, refobjid, refobjsubid FROM pg_depend
        WHERE classid = class AND objid = object AND objsubid = part AND deptype IN ('i', 'e')
    ) next
), named AS (
    SELECT concat_ws(' ', it.type, it.identity) AS name,
           coalesce(it.schema, CASE WHEN it.type IN ('trigger', 'rule', 'policy', 'default value') THEN quote_ident(address.object_names[1])
                                     WHEN it.type IN ('extension', 'event trigger') THEN 'the database' END) AS place
    FROM dropped, pg_identify_object(class, object, part) it, pg_identify_object_as_address(class, object, part) address
    WHERE NOT EXISTS (SELECT FROM pg_depend WHERE classid = class AND objid = object AND objsubid = part AND deptype = 'i')
)
SELECT DISTINCT name FROM named
WHERE place <> quote_ident($1) AND NOT place ^@ 'pg_temp' AND NOT place ^@ 'pg_toast' ORDER BY 1
