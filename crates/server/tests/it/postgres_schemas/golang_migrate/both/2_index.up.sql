CREATE INDEX CONCURRENTLY devices_kind ON "Devices" (tenant_id, kind);
