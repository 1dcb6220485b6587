-- What the current transaction has created, changed or dropped outside of the main schema $1 and of the tenant's others, for
-- all of which a placeholder stands, one row for each object. If $2, the database belongs to the schema's tenant: what stands in no
-- schema is not outside, except large objects, roles and extensions.
--
-- A row of a system catalogue is the transaction's own if its xmin is one of its own transaction ids: not before the
-- transaction's first id, and either newer than the snapshot or still in progress (other transactions' visible rows
-- are committed). The columns xmin have 32 bits; the current epoch completes them.
WITH bounds AS (
    SELECT pg_current_xact_id()::text::bigint AS mine, pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next
), objects (class, object, place, created) AS (
    SELECT 'pg_class'::regclass, oid, relnamespace, xmin FROM pg_class
    WHERE relnamespace <> 'pg_toast'::regnamespace AND relpersistence <> 't'
    UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace, xmin FROM pg_proc
    UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace, xmin FROM pg_type
              WHERE typrelid = 0 AND typelem = 0 AND typtype <> 'm'
    UNION ALL SELECT 'pg_operator'::regclass, oid, oprnamespace, xmin FROM pg_operator
    UNION ALL SELECT 'pg_opclass'::regclass, oid, opcnamespace, xmin FROM pg_opclass
    UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfnamespace, xmin FROM pg_opfamily
    UNION ALL SELECT 'pg_collation'::regclass, oid, collnamespace, xmin FROM pg_collation
    UNION ALL SELECT 'pg_conversion'::regclass, oid, connamespace, xmin FROM pg_conversion
    UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgnamespace, xmin FROM pg_ts_config
    UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictnamespace, xmin FROM pg_ts_dict
    UNION ALL SELECT 'pg_ts_parser'::regclass, oid, prsnamespace, xmin FROM pg_ts_parser
    UNION ALL SELECT 'pg_ts_template'::regclass, oid, tmplnamespace, xmin FROM pg_ts_template
    UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxnamespace, xmin FROM pg_statistic_ext
    UNION ALL SELECT 'pg_trigger'::regclass, t.oid, relnamespace, t.xmin
              FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE NOT tgisinternal
    UNION ALL SELECT 'pg_policy'::regclass, p.oid, relnamespace, p.xmin FROM pg_policy p JOIN pg_class c ON c.oid = polrelid
    UNION ALL SELECT 'pg_rewrite'::regclass, r.oid, relnamespace, r.xmin
              FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class WHERE rulename <> '_RETURN'
    UNION ALL SELECT 'pg_namespace'::regclass, oid, oid, xmin FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
    UNION ALL SELECT 'pg_default_acl'::regclass, oid, defaclnamespace, xmin FROM pg_default_acl
    UNION ALL SELECT 'pg_extension'::regclass, oid, NULL, xmin FROM pg_extension
    UNION ALL SELECT 'pg_cast'::regclass, oid, NULL, xmin FROM pg_cast
    UNION ALL SELECT 'pg_language'::regclass, oid, NULL, xmin FROM pg_language
    UNION ALL SELECT 'pg_transform'::regclass, oid, NULL, xmin FROM pg_transform
    UNION ALL SELECT 'pg_am'::regclass, oid, NULL, xmin FROM pg_am
    UNION ALL SELECT 'pg_event_trigger'::regclass, oid, NULL, xmin FROM pg_event_trigger
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, NULL, xmin FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_foreign_server'::regclass, oid, NULL, xmin FROM pg_foreign_server
    UNION ALL SELECT 'pg_publication'::regclass, oid, NULL, xmin FROM pg_publication
    UNION ALL SELECT 'pg_largeobject'::regclass, oid, NULL, xmin FROM pg_largeobject_metadata
    UNION ALL SELECT 'pg_database'::regclass, oid, NULL, xmin FROM pg_database
    UNION ALL SELECT 'pg_tablespace'::regclass, oid, NULL, xmin FROM pg_tablespace
    UNION ALL SELECT 'pg_authid'::regclass, member, NULL, xmin FROM pg_auth_members
    UNION ALL SELECT CASE setrole WHEN 0 THEN 'pg_database'::regclass ELSE 'pg_authid'::regclass END,
                     CASE setrole WHEN 0 THEN setdatabase ELSE setrole END, NULL, xmin FROM pg_db_role_setting
), own AS (
    SELECT DISTINCT class, object FROM objects, bounds,
           LATERAL (SELECT (mine & ~4294967295) | created::text::bigint AS id) whole
    WHERE (place IS NULL OR place NOT IN (OWN_SCHEMAS))
      AND NOT ($2 AND place IS NULL AND class NOT IN ('pg_database'::regclass, 'pg_tablespace'::regclass,
                                                       'pg_authid'::regclass, 'pg_largeobject'::regclass,
                                                       'pg_extension'::regclass))
      AND id >= mine
      AND CASE WHEN id >= next THEN true ELSE pg_xact_status(id::text::xid8) = 'in progress' END
      AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = class AND objid = object AND deptype = 'i')
      -- The objects of an extension come with it.
      AND NOT EXISTS (SELECT FROM pg_depend JOIN pg_extension e ON e.oid = refobjid
                      WHERE refclassid = 'pg_extension'::regclass AND classid = class AND objid = object AND deptype = 'e' AND e.xmin::text = created::text)
)
SELECT DISTINCT concat_ws(' ', type, CASE type WHEN 'large object' THEN NULL ELSE identity END) FROM own, pg_identify_object(class, object, 0)
-- A dropped object has no row any more, but the transaction holds its lock. Objects of the transaction itself have
-- greater numbers than the schema, which it has created.
UNION ALL SELECT DISTINCT 'an object that existed before, by dropping it' FROM pg_locks
          WHERE pid = pg_backend_pid() AND mode = 'AccessExclusiveLock'
            AND (NOT $2 AND coalesce(relation, objid)::bigint < to_regnamespace($1)::oid::bigint OR classid = 'pg_extension'::regclass)
            AND CASE locktype WHEN 'relation' THEN NOT EXISTS (SELECT FROM pg_class WHERE oid = relation)
                              WHEN 'object' THEN (pg_identify_object(classid, objid, 0)).identity IS NULL END
-- ALTER EXTENSION … ADD and DROP leave the extension's row as it is, but the transaction holds its lock.
UNION ALL SELECT DISTINCT format('extension %I', extname) FROM pg_extension e
          JOIN pg_locks ON pid = pg_backend_pid() AND locktype = 'object' AND classid = 'pg_extension'::regclass AND objid = e.oid
-- CREATE, ALTER and DROP ROLE keep this lock. Only superusers may read the table itself.
UNION ALL SELECT 'a role' FROM pg_locks
          WHERE pid = pg_backend_pid() AND mode = 'RowExclusiveLock' AND locktype = 'relation' AND relation = 'pg_authid'::regclass
ORDER BY 1
