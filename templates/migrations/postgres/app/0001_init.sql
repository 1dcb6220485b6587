-- The starter product on PostgreSQL: workspaces, categories, notification settings, projects and tasks. The same files
-- make the tables that tenants share and those that one tenant has for itself, so `tenant_id` opens every key there too.
-- Names have no schema: the tables come to be where the tenant's rows are.

CREATE TABLE workspaces (
    tenant_id  text NOT NULL,
    id         text NOT NULL,
    name       text NOT NULL,
    locale     text NOT NULL DEFAULT 'en',
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE categories (
    tenant_id    text NOT NULL,
    id           text NOT NULL,
    workspace_id text NOT NULL DEFAULT 'default',
    name         text NOT NULL,
    color        text NOT NULL DEFAULT '#64748b',
    position     integer NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE notification_settings (
    tenant_id text NOT NULL,
    id        text NOT NULL,
    label     text NOT NULL,
    channel   text NOT NULL DEFAULT 'email' CHECK (channel IN ('email', 'in_app')),
    enabled   boolean NOT NULL DEFAULT true,
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE projects (
    tenant_id    text NOT NULL,
    id           text NOT NULL,
    workspace_id text NOT NULL DEFAULT 'default',
    name         text NOT NULL,
    description  text NOT NULL DEFAULT '',
    sample       boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE tasks (
    tenant_id   text NOT NULL,
    id          text NOT NULL,
    project_id  text NOT NULL,
    category_id text,
    title       text NOT NULL,
    done        boolean NOT NULL DEFAULT false,
    position    integer NOT NULL DEFAULT 0,
    sample      boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, category_id) REFERENCES categories (tenant_id, id)
);

CREATE INDEX categories_by_workspace ON categories (tenant_id, workspace_id);
CREATE INDEX projects_by_workspace ON projects (tenant_id, workspace_id);
CREATE INDEX tasks_by_project ON tasks (tenant_id, project_id);
CREATE INDEX tasks_by_category ON tasks (tenant_id, category_id);
