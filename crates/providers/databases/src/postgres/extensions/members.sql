-- Names and operators of the objects of the extensions $1, each with its schema.
WITH members AS (
    SELECT classid, objid FROM pg_depend JOIN pg_extension ON refobjid = pg_extension.oid
    WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND extname = ANY ($1)
)
SELECT DISTINCT name::text, nspname::text
FROM (
    SELECT proname, pronamespace FROM members JOIN pg_proc ON classid = 'pg_proc'::regclass AND oid = objid
    UNION ALL SELECT typname, typnamespace FROM members JOIN pg_type ON classid = 'pg_type'::regclass AND oid = objid
    UNION ALL SELECT relname, relnamespace FROM members JOIN pg_class ON classid = 'pg_class'::regclass AND oid = objid
    UNION ALL SELECT oprname, oprnamespace FROM members JOIN pg_operator ON classid = 'pg_operator'::regclass AND oid = objid
    UNION ALL SELECT opcname, opcnamespace FROM members JOIN pg_opclass ON classid = 'pg_opclass'::regclass AND oid = objid
    UNION ALL SELECT opfname, opfnamespace FROM members JOIN pg_opfamily ON classid = 'pg_opfamily'::regclass AND oid = objid
    UNION ALL SELECT dictname, dictnamespace FROM members JOIN pg_ts_dict ON classid = 'pg_ts_dict'::regclass AND oid = objid
    UNION ALL SELECT cfgname, cfgnamespace FROM members JOIN pg_ts_config ON classid = 'pg_ts_config'::regclass AND oid = objid
) named (name, namespace) JOIN pg_namespace ON pg_namespace.oid = namespace
