CREATE INDEX CONCURRENTLY IF NOT EXISTS movements_article ON movements (tenant_id, article_id);
