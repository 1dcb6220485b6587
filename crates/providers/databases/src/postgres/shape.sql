-- The definition of everything in the main schema $1 and in the tenant's others, for all of which a placeholder stands, part by part: object, part, definition in form 1 and in form 2, null
-- where a form does not have the part. Form 1 is that of shapes recorded before forms were counted, and never changes.
-- For a database of a tenant's own (schema `public`) also what belongs to the database. Texts that PostgreSQL makes are
-- those of the search path `pg_catalog`.
WITH home AS (
    SELECT n.oid, d.oid AS database, coalesce(datname, nspname) AS role
    FROM pg_namespace n LEFT JOIN pg_database d ON nspname = 'public' AND datname = current_database() WHERE nspname = $1),
-- With what follows the names of their objects.
places AS (
    SELECT n.oid, CASE WHEN nspname = $1 THEN '' ELSE format(' in `%s`', nspname) END AS place, nspname, nspowner, nspacl
    FROM pg_namespace n WHERE oid IN (OWN_SCHEMAS)),
-- Neither catalogue has an index by schema, so objects are found by their dependency on it, and then by their schema: a
-- temporary function whose default names another schema depends on that schema without being in it.
held AS (
    SELECT classid, objid, place FROM pg_depend JOIN places ON refclassid = 'pg_namespace'::regclass AND refobjid = places.oid),
members AS (
    SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'),
own AS (
    SELECT pg_class.*, CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(pg_class.oid) END AS query, format('%s `%s`%s', CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
                                                      WHEN 'f' THEN 'foreign table' WHEN 'c' THEN 'type' ELSE 'table' END, relname, place) AS label
    FROM pg_class JOIN places ON places.oid = relnamespace
    WHERE pg_class.oid IN (SELECT objid FROM held WHERE classid = 'pg_class'::regclass
                           -- The relation of a composite type depends on the type.
                           UNION ALL SELECT typrelid FROM held JOIN pg_type ON classid = 'pg_type'::regclass AND pg_type.oid = objid)
      AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')),
routines AS (
    SELECT pg_proc.*, format('function `%s(%s)`%s', proname, pg_get_function_identity_arguments(pg_proc.oid), held.place) AS label,
           -- Those of an extension, and those that come with a range type.
           EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype IN ('e', 'i')) AS is_member
    FROM pg_proc JOIN places ON places.oid = pronamespace JOIN held ON held.classid = 'pg_proc'::regclass AND objid = pg_proc.oid),
types AS (
    SELECT pg_type.*, format('%s `%s`%s', CASE typtype WHEN 'd' THEN 'domain' ELSE 'type' END, typname, held.place) AS label
    FROM pg_type JOIN places ON places.oid = typnamespace JOIN held ON held.classid = 'pg_type'::regclass AND objid = pg_type.oid
    WHERE typtype IN ('e', 'd', 'r', 'b', 'p') AND NOT EXISTS (SELECT FROM pg_type base WHERE base.typarray = pg_type.oid)
      AND NOT EXISTS (SELECT FROM members WHERE classid = 'pg_type'::regclass AND objid = pg_type.oid)),
others AS (
    SELECT held.classid, objid, concat(type, ' `', coalesce(name, identity), '`', place) AS label FROM held, pg_identify_object(held.classid, objid, 0)
    WHERE held.classid IN ('pg_collation'::regclass, 'pg_conversion'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass,
                      'pg_statistic_ext'::regclass, 'pg_ts_config'::regclass, 'pg_ts_dict'::regclass, 'pg_ts_parser'::regclass, 'pg_ts_template'::regclass)
      AND (held.classid, objid) NOT IN (SELECT classid, objid FROM members)),
owned AS (
    SELECT label, relowner AS owner, relacl AS acl, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char" AS kind FROM own WHERE relkind <> 'c'
    UNION ALL SELECT label, proowner, proacl, 'f' FROM routines WHERE NOT is_member
    UNION ALL SELECT label, typowner, typacl, 'T' FROM types
    UNION ALL SELECT own.label, typowner, typacl, 'T' FROM own JOIN pg_type ON typrelid = own.oid WHERE relkind = 'c'
    UNION ALL SELECT others.label, stxowner, NULL, NULL FROM others JOIN pg_statistic_ext s ON classid = 'pg_statistic_ext'::regclass AND s.oid = objid
    UNION ALL SELECT others.label, collowner, NULL, NULL FROM others JOIN pg_collation c ON classid = 'pg_collation'::regclass AND c.oid = objid
    UNION ALL SELECT CASE place WHEN '' THEN 'schema' ELSE format('schema `%s`', nspname) END, nspowner, nspacl, 'n' FROM places
    UNION ALL SELECT 'database', datdba, datacl, 'd' FROM home JOIN pg_database ON pg_database.oid = database),
granted AS (
    SELECT label, 'access list' AS part, owner, kind, acl.* FROM owned, aclexplode(coalesce(acl, acldefault(kind, owner))) acl WHERE kind IS NOT NULL
    UNION ALL SELECT label, format('access list of column `%s`', attname), relowner, 'c', acl.* FROM own JOIN pg_attribute ON attrelid = own.oid AND NOT attisdropped, aclexplode(attacl) acl),
-- The names of roles that mean the same for every tenant: the administrator, who may have changed, and the tenant's own.
roles AS (
    SELECT oid, CASE WHEN rolname = (SELECT role FROM home) THEN 'its own role'
                     WHEN rolname = current_user OR rolsuper OR rolcreaterole THEN 'the administrator' ELSE rolname END AS name
    FROM pg_roles WHERE oid IN (SELECT owner FROM owned UNION SELECT grantee FROM granted))

SELECT label, '', CASE WHEN query IS NOT NULL THEN query WHEN relkind <> 'c' THEN relkind::text END,
       concat_ws('; ', relkind::text, nullif(relpersistence, 'p')::text,
                 -- PostgreSQL 15 names the table before each column of a query on one table, later releases do not.
                 regexp_replace(query, '(?<![\w"])' || regexp_replace(coalesce(one[2], regexp_replace(one[1], '^.*\.', '')), '(\W)', '\\\1', 'g') || '\.', '', 'g'),
                 -- Operators tune the vacuum of single tables.
                 (SELECT string_agg(option, ', ' ORDER BY option) FROM unnest(reloptions) option WHERE NOT option ^@ 'autovacuum_'),
                 CASE WHEN relkind IN ('r', 'p', 'm') AND relreplident <> 'd' THEN 'replica identity ' || relreplident::text END,
                 (SELECT amname FROM pg_am WHERE pg_am.oid = relam AND amname <> 'heap'),
                 CASE WHEN relkind = 'p' THEN pg_get_partkeydef(own.oid) END, pg_get_expr(relpartbound, own.oid),
                 (SELECT string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = own.oid),
                 CASE WHEN reloftype <> 0 THEN format_type(reloftype, NULL) END,
                 (SELECT concat_ws(' ', srvname, ftoptions) FROM pg_foreign_table JOIN pg_foreign_server s ON s.oid = ftserver WHERE ftrelid = own.oid),
                 (SELECT concat_ws(' ', format_type(seqtypid, NULL), seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle) FROM pg_sequence WHERE seqrelid = own.oid),
                 (SELECT format('of %s.%I', refobjid::regclass, attname) FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
                  WHERE relkind = 'S' AND classid = 'pg_class'::regclass AND objid = own.oid AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')))
FROM own, LATERAL (SELECT coalesce(regexp_match(query, '\n   FROM (?:ONLY )?([^\s(,;]+)(?: ([^\s(,;]+))?(?:;|\n)'), '{$}') AS one) single
UNION ALL SELECT label, 'row level security', concat_ws(' ', relrowsecurity, relforcerowsecurity), concat_ws(' ', relrowsecurity, relforcerowsecurity)
FROM own WHERE relkind IN ('r', 'p')
UNION ALL SELECT label, format('column `%s`', attname), CASE WHEN relkind <> 'c' THEN definition END,
       concat_ws('; ', definition, nullif(attidentity, '')::text, CASE WHEN attstorage <> typstorage THEN attstorage::text END, nullif(attcompression, '')::text,
                 CASE WHEN attcollation <> typcollation THEN attcollation::regcollation::text END, attoptions, attfdwoptions)
FROM own JOIN pg_attribute ON attrelid = own.oid AND attnum > 0 AND NOT attisdropped AND relkind <> 'S' JOIN pg_type ON pg_type.oid = atttypid
LEFT JOIN pg_attrdef ON adrelid = own.oid AND adnum = attnum,
LATERAL concat_ws(' ', attnum, format_type(atttypid, atttypmod), attnotnull, attgenerated, pg_get_expr(adbin, adrelid)) definition
UNION ALL SELECT label, format('constraint `%s`', conname), definition, definition
FROM own JOIN pg_constraint c ON conrelid = own.oid AND contype <> 'n', LATERAL concat_ws(' ', contype, convalidated, pg_get_constraintdef(c.oid)) definition
UNION ALL SELECT label, format('index `%s`', i.relname), definition,
       concat_ws('; ', definition, CASE WHEN indisreplident THEN 'replica identity' END, CASE WHEN indisclustered THEN 'clustered' END)
FROM own JOIN pg_index ON indrelid = own.oid JOIN pg_class i ON i.oid = indexrelid, LATERAL concat_ws(' ', indisvalid, pg_get_indexdef(indexrelid)) definition
UNION ALL SELECT label, format('policy `%s`', polname), definition,
       concat_ws('; ', definition, (SELECT string_agg(CASE WHEN polrole = 0 THEN 'public' WHEN rolname = (SELECT home.role FROM home) THEN 'its own role' ELSE rolname END, ', ' ORDER BY rolname)
                                    FROM unnest(polroles) polrole LEFT JOIN pg_roles ON oid = polrole))
FROM own JOIN pg_policy ON polrelid = own.oid,
LATERAL concat_ws(' ', polcmd, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) definition
UNION ALL SELECT label, format('trigger `%s`', tgname), concat_ws(' ', tgenabled, tgtype), concat_ws(' ', tgenabled, pg_get_triggerdef(pg_trigger.oid))
FROM own JOIN pg_trigger ON tgrelid = own.oid AND NOT tgisinternal
-- DISABLE TRIGGER ALL disables the triggers of foreign keys too.
UNION ALL SELECT label, 'state of foreign keys', NULL, string_agg(DISTINCT tgenabled::text, ' ') FROM own JOIN pg_trigger ON tgrelid = own.oid AND tgisinternal GROUP BY label
UNION ALL SELECT label, format('rule `%s`', rulename), NULL, concat_ws(' ', ev_enabled, pg_get_ruledef(pg_rewrite.oid))
FROM own JOIN pg_rewrite ON ev_class = own.oid AND rulename <> '_RETURN'
UNION ALL SELECT label, 'partitions', count(*)::text, nullif(count(*) FILTER (WHERE is_elsewhere), 0)::text
FROM (SELECT label, child.relnamespace <> own.relnamespace AS is_elsewhere FROM own JOIN pg_inherits ON inhparent = own.oid JOIN pg_class child ON child.oid = inhrelid) part GROUP BY label

UNION ALL SELECT label, '', concat_ws(' ', prosecdef, md5(prosrc)),
       CASE WHEN is_member THEN NULL WHEN prokind <> 'a' THEN pg_get_functiondef(routines.oid)
            ELSE (SELECT concat_ws('; ', format_type(prorettype, NULL), aggkind, aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn, aggmtransfn, aggminvtransfn,
                                   aggmfinalfn, aggfinalextra, aggsortop::regoperator, format_type(aggtranstype, NULL), agginitval, aggminitval, aggfinalmodify, proparallel)
                  FROM pg_aggregate WHERE aggfnoid = routines.oid) END
FROM routines

UNION ALL SELECT label, '', NULL, concat_ws('; ', typtype::text,
       (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = types.oid),
       CASE WHEN typtype = 'd' THEN concat_ws(' ', format_type(typbasetype, typtypmod), typnotnull, typdefault,
                                              CASE WHEN typcollation <> (SELECT base.typcollation FROM pg_type base WHERE base.oid = types.typbasetype) THEN typcollation::regcollation END) END,
       (SELECT concat_ws(' ', format_type(rngsubtype, NULL), rngcollation::regcollation, (SELECT opcname FROM pg_opclass WHERE pg_opclass.oid = rngsubopc),
                         nullif(rngcanonical, 0), nullif(rngsubdiff, 0), format_type(rngmultitypid, NULL)) FROM pg_range WHERE rngtypid = types.oid))
FROM types
UNION ALL SELECT label, format('constraint `%s`', conname), NULL, concat_ws(' ', convalidated, pg_get_constraintdef(c.oid))
FROM types JOIN pg_constraint c ON contypid = types.oid AND contype <> 'n'

UNION ALL SELECT label, '', NULL, coalesce(
       (SELECT pg_get_statisticsobjdef(objid) || ' ' || coalesce(stxstattarget, -1) FROM pg_statistic_ext s WHERE classid = 'pg_statistic_ext'::regclass AND s.oid = objid),
       (SELECT concat_ws(' ', collprovider, collisdeterministic, collencoding, collcollate, collctype) FROM pg_collation c WHERE classid = 'pg_collation'::regclass AND c.oid = objid),
       (SELECT concat_ws(' ', oprcode, oprrest, oprjoin, oprcanmerge, oprcanhash) FROM pg_operator o WHERE classid = 'pg_operator'::regclass AND o.oid = objid),
       (SELECT concat_ws(' ', dicttemplate, dictinitoption) FROM pg_ts_dict d WHERE classid = 'pg_ts_dict'::regclass AND d.oid = objid),
       (SELECT string_agg(concat_ws(' ', maptokentype, mapseqno, mapdict::regdictionary), ', ' ORDER BY maptokentype, mapseqno) FROM pg_ts_config_map
        WHERE classid = 'pg_ts_config'::regclass AND mapcfg = objid), '')
FROM others

UNION ALL SELECT label, 'owner', NULL, roles.name FROM owned JOIN roles ON roles.oid = owner
UNION ALL SELECT label, part, NULL, string_agg(concat_ws(' ', coalesce(roles.name, 'public'), privilege_type, CASE WHEN is_grantable THEN 'grantable' END), ', '
                                               ORDER BY roles.name NULLS FIRST, privilege_type)
FROM granted LEFT JOIN roles ON roles.oid = grantee
-- The rights of the tenant's role follow its fence, and every routine is taken from PUBLIC; both are compared apart.
WHERE grantee <> owner AND roles.name IS DISTINCT FROM 'its own role' AND NOT (kind = 'f' AND grantee = 0) GROUP BY label, part
UNION ALL SELECT format('default access list of `%s`', CASE WHEN rolname = current_user OR rolsuper OR rolcreaterole THEN 'the administrator' ELSE rolname END),
       concat(CASE defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'routines' WHEN 'T' THEN 'types' ELSE defaclobjtype::text END,
              (SELECT place FROM places WHERE places.oid = defaclnamespace)), NULL, defaclacl::text
FROM home JOIN pg_default_acl ON defaclnamespace IN (SELECT oid FROM places) OR defaclnamespace = 0 AND database IS NOT NULL
-- A tenant's role may set its own.
JOIN pg_roles ON pg_roles.oid = defaclrole AND rolname <> home.role

UNION ALL SELECT format('event trigger `%s`', evtname), '', NULL, concat_ws(' ', evtevent, evtenabled, evtfoid::regprocedure, evttags)
FROM home JOIN pg_event_trigger ON database IS NOT NULL
UNION ALL SELECT format('publication `%s`', pubname), '', NULL, concat_ws(' ', puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
       (SELECT string_agg(concat_ws(' ', prrelid::regclass, prattrs, pg_get_expr(prqual, prrelid)), ', ' ORDER BY prrelid::regclass::text) FROM pg_publication_rel WHERE prpubid = pub.oid),
       (SELECT string_agg(pnnspid::regnamespace::text, ', ') FROM pg_publication_namespace WHERE pnpubid = pub.oid))
FROM home JOIN pg_publication pub ON database IS NOT NULL
UNION ALL SELECT format('schema `%s`', nspname), '', NULL, '' FROM home JOIN pg_namespace n ON database IS NOT NULL AND n.oid <> home.oid
-- That of extensions is there from the first file on that names one.
WHERE NOT nspname ^@ 'pg_' AND nspname NOT IN ('information_schema', 'extensions') AND ('pg_namespace'::regclass, n.oid) NOT IN (SELECT classid, objid FROM members)
UNION ALL SELECT 'database', 'settings', NULL, setconfig::text FROM home JOIN pg_db_role_setting ON setdatabase = database AND setrole = 0
