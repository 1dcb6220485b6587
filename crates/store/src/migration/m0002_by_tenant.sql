-- Every table that names a tenant is found by tenant, so that no step reads the whole fleet. Frozen.
CREATE INDEX credentials_tenant ON credentials (tenant_id);
CREATE INDEX sign_in_codes_tenant ON sign_in_codes (tenant_id);
CREATE INDEX idempotency_keys_tenant ON idempotency_keys (tenant_id) WHERE tenant_id IS NOT NULL;
CREATE INDEX api_keys_tenant ON api_keys (tenant_id) WHERE tenant_id IS NOT NULL;
