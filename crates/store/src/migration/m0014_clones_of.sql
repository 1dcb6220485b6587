-- The clones of a tenant are found by it, so that an end does not read the whole fleet. Frozen.
CREATE INDEX tenants_cloned_from ON tenants (cloned_from) WHERE cloned_from IS NOT NULL;
