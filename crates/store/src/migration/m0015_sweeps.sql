-- What a background task looks for is found by index, so that it does not read the whole fleet every hour. Frozen.
CREATE INDEX tenants_fenced ON tenants (id) WHERE denied = fenced;
CREATE INDEX resources_renewal ON resources ((outputs ->> 'renew_at'), id)
    WHERE kind = 'certificate' AND state = 'present';
CREATE INDEX resources_database ON resources (provider, id) WHERE kind = 'database' AND state = 'present';
