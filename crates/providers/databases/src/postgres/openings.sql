-- What opens the schemas of one tenant, $1 and others, for which a placeholder stands, to other tenants, or others to the
-- tenant: one sentence for each.
WITH places AS (
    SELECT oid, CASE WHEN nspname = $1 THEN '' ELSE nspname || '.' END AS prefix,
           CASE WHEN nspname = $1 THEN 'the schema' ELSE format('the schema `%s`', nspname) END AS name, nspacl
    FROM pg_namespace WHERE oid IN (OWN_SCHEMAS)
), relations AS (
    SELECT c.oid, prefix || relname AS name, relkind, relacl, reloptions FROM pg_class c JOIN places ON places.oid = relnamespace)
-- A tenant's session chooses the search path and has temporary objects, so that the names in such a function can refer to
-- objects of the tenant, whose code then runs as the administrator.
SELECT format('function `%s%s` runs as the administrator, and a tenant can put objects of its own before those that it names: leave SECURITY DEFINER out', prefix, proname)
FROM pg_proc JOIN places ON places.oid = pronamespace WHERE prosecdef
-- Views and rules on what the tenant's login may not read itself use it as the administrator, also to write.
UNION SELECT format('`%s` reaches `%s` as the administrator, outside of the tenant''s schema: leave it out', own.name, used.oid::regclass)
FROM relations own JOIN pg_rewrite ON ev_class = own.oid
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = pg_rewrite.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class used ON used.oid = d.refobjid AND used.relnamespace NOT IN (SELECT oid FROM places)
WHERE NOT has_table_privilege('public', used.oid, 'SELECT')
UNION SELECT format('`%s` reaches the catalogue `%s` as the administrator, also to write: add WITH (security_invoker = true), or leave it out', own.name, used.relname)
FROM relations own JOIN pg_rewrite ON ev_class = own.oid, LATERAL regexp_matches(ev_action::text, ':relid ([0-9]+)', 'g') relation
JOIN pg_class used ON used.oid = relation[1]::oid AND used.relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
WHERE own.relkind = 'v'
  AND NOT coalesce(own.reloptions, '{}') && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes']
-- Objects of later files would be reached by the roles that default privileges name.
UNION SELECT format('default privileges for `%s` would reach objects of later migrations: leave ALTER DEFAULT PRIVILEGES out',
                    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END)
FROM pg_default_acl, aclexplode(defaclacl) WHERE defaclnamespace IN (SELECT oid FROM places) AND grantee <> defaclrole
UNION SELECT format('%s on %s is granted to PUBLIC, which no suspension revokes: leave GRANT out, because Tenantry grants what the tenant''s login needs',
                    string_agg(DISTINCT privilege_type, ', ' ORDER BY privilege_type), object)
FROM (SELECT format('`%s`', name), relacl FROM relations
      UNION ALL SELECT format('`%s`', name), attacl FROM relations JOIN pg_attribute ON attrelid = relations.oid
      UNION ALL SELECT name, nspacl FROM places) granted (object, acl), aclexplode(acl)
WHERE grantee = 0 GROUP BY object
ORDER BY 1
