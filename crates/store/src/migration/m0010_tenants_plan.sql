-- The tenants of a plan are found by plan, so that a list of them does not read the whole fleet. Frozen.
CREATE INDEX tenants_plan ON tenants (plan, id);
