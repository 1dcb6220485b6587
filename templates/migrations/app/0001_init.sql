-- The starter product: workspaces, categories, notification settings, projects and tasks of every tenant, side by
-- side in one database. `tenant_id` opens every key, so each tenant's rows lie together and no key, index or
-- reference can reach into another tenant's.

CREATE TABLE workspaces (
    tenant_id  TEXT NOT NULL,
    id         TEXT NOT NULL,
    name       TEXT NOT NULL,
    locale     TEXT NOT NULL DEFAULT 'en',
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE categories (
    tenant_id    TEXT NOT NULL,
    id           TEXT NOT NULL,
    workspace_id TEXT NOT NULL DEFAULT 'default',
    name         TEXT NOT NULL,
    color        TEXT NOT NULL DEFAULT '#64748b',
    position     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE notification_settings (
    tenant_id TEXT NOT NULL,
    id        TEXT NOT NULL,
    label     TEXT NOT NULL,
    channel   TEXT NOT NULL DEFAULT 'email' CHECK (channel IN ('email', 'in_app')),
    enabled   INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE projects (
    tenant_id    TEXT NOT NULL,
    id           TEXT NOT NULL,
    workspace_id TEXT NOT NULL DEFAULT 'default',
    name         TEXT NOT NULL,
    description  TEXT NOT NULL DEFAULT '',
    sample       INTEGER NOT NULL DEFAULT 0 CHECK (sample IN (0, 1)),
    created_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (
    tenant_id   TEXT NOT NULL,
    id          TEXT NOT NULL,
    project_id  TEXT NOT NULL,
    category_id TEXT,
    title       TEXT NOT NULL,
    done        INTEGER NOT NULL DEFAULT 0 CHECK (done IN (0, 1)),
    position    INTEGER NOT NULL DEFAULT 0,
    sample      INTEGER NOT NULL DEFAULT 0 CHECK (sample IN (0, 1)),
    created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, category_id) REFERENCES categories (tenant_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX categories_by_workspace ON categories (tenant_id, workspace_id);
CREATE INDEX projects_by_workspace ON projects (tenant_id, workspace_id);
CREATE INDEX tasks_by_project ON tasks (tenant_id, project_id);
CREATE INDEX tasks_by_category ON tasks (tenant_id, category_id);
