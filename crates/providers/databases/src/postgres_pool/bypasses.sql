-- What in the schema $1 would show one tenant's rows to another, or let a tenant change other tenants' rows, past the
-- policies of the shared tables: one sentence for each object. The owner of the objects is the administrator.
WITH own AS (SELECT *, EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = 'tenantry_lookup') AS is_lookup
             FROM pg_class WHERE relnamespace = to_regnamespace($1))
SELECT format('view `%s` shows every tenant''s rows: create it WITH (security_invoker = true)', relname) FROM own
WHERE relkind = 'v' AND NOT coalesce(reloptions, '{}') && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1']
UNION ALL
SELECT format('`%s` is a copy of rows that no policy protects: create an ordinary table', relname) FROM own WHERE relkind IN ('m', 'f')
UNION ALL
SELECT format('table `%s`: the rule `%s` runs as the owner of the table and sees every tenant''s rows: use a trigger', relname, rulename)
FROM own JOIN pg_rewrite ON ev_class = own.oid WHERE rulename <> '_RETURN'
UNION ALL
SELECT format('table `%s`: the policy `%s` admits more than the tenant''s rows: create it AS RESTRICTIVE', relname, polname)
FROM own JOIN pg_policy ON polrelid = own.oid
WHERE polpermissive AND polname NOT IN ('tenantry_select', 'tenantry_insert', 'tenantry_update', 'tenantry_delete', 'tenantry_lookup')
UNION ALL
SELECT format('function `%s` runs as its owner and sees every tenant''s rows: leave SECURITY DEFINER out', proname)
FROM pg_proc WHERE pronamespace = to_regnamespace($1) AND prosecdef
UNION ALL
SELECT format('function `%s` may run before the policies, on other tenants'' rows: leave LEAKPROOF out', proname)
FROM pg_proc WHERE pronamespace = to_regnamespace($1) AND proleakproof
UNION ALL
SELECT format('table `%s`: %s bypasses the policies: leave its GRANT to `%s` out', relname, privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END)
FROM own, aclexplode(relacl) WHERE relkind <> 'S' AND grantee <> relowner AND privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
UNION ALL
SELECT format('table `%s` is marked `tenantry: lookup`, so tenants only read it: leave its GRANT of %s to `%s` out', relname, privilege_type,
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END)
FROM own, LATERAL (SELECT grantee, privilege_type FROM aclexplode(relacl)
                   UNION ALL SELECT grantee, privilege_type FROM pg_attribute, aclexplode(attacl) WHERE attrelid = own.oid) acl
WHERE is_lookup AND grantee <> relowner AND privilege_type IN ('INSERT', 'UPDATE', 'DELETE')
UNION ALL
SELECT format('%s on `%s` is granted to PUBLIC, which no suspension revokes: leave GRANT out, because Tenantry grants what the tenant''s login needs',
              string_agg(DISTINCT privilege_type, ', ' ORDER BY privilege_type), relname)
FROM own, LATERAL (SELECT grantee, privilege_type FROM aclexplode(relacl)
                   UNION ALL SELECT grantee, privilege_type FROM pg_attribute, aclexplode(attacl) WHERE attrelid = own.oid) acl
WHERE grantee = 0 GROUP BY relname
UNION ALL
SELECT format('sequence `%s`: %s lets a tenant change the numbers of others: leave its GRANT to `%s` out', relname, privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END)
FROM own, aclexplode(relacl) WHERE relkind = 'S' AND grantee <> relowner AND privilege_type <> 'USAGE'
UNION ALL
SELECT format('table `%s`, column `%s`: REFERENCES shows whether a key of another tenant exists: leave its GRANT out', relname, attname)
FROM own JOIN pg_attribute ON attrelid = own.oid, aclexplode(attacl) WHERE privilege_type = 'REFERENCES'
UNION ALL
SELECT format('default privileges for `%s` would reach objects of later migrations: leave ALTER DEFAULT PRIVILEGES out', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END)
FROM pg_default_acl, aclexplode(defaclacl) WHERE defaclnamespace = to_regnamespace($1)
UNION ALL
SELECT format('the role `%s` may create objects beside the shared tables: leave GRANT CREATE ON SCHEMA out', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END)
FROM pg_namespace, aclexplode(nspacl) WHERE oid = to_regnamespace($1) AND privilege_type = 'CREATE' AND grantee <> nspowner
ORDER BY 1
