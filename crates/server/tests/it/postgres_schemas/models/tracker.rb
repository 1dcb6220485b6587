# A project tracker, in the style of Rails. With TENANTS=1 its tables can be shared: every key begins with the tenant's
# id. Writes db/structure.sql of the database in DATABASE_URL to the file of the first argument. Written for these tests.
require "active_record"

ActiveRecord::Base.establish_connection(ENV.fetch("DATABASE_URL"))
ActiveRecord::Base.schema_format = :sql
TENANTS = ENV["TENANTS"] == "1"

class CreateProjects < ActiveRecord::Migration[6.1]
  def change
    execute "CREATE TYPE priority AS ENUM ('low', 'high', 'very high')"
    execute "CREATE DOMAIN hex_color AS text CHECK (VALUE ~ '^#[0-9a-f]{6}$') DEFAULT '#000000'"
    table :users do |t|
      t.string :email, null: false
      t.string :name, limit: 100
      t.inet :last_ip
      t.jsonb :preferences, null: false, default: {}
      t.integer :lock_version, default: 0, null: false
      t.timestamps
    end
    unique :users, :email
    add_index :users, :preferences, using: :gin
    table :projects do |t|
      t.string :type
      t.column :color, :hex_color
      t.column :priority, :priority, default: "low", null: false
      t.references_own :owner, :users
      t.string :tags, array: true, default: []
      t.integer :matrix, array: true
      t.daterange :planned
      t.numrange :budget
      t.tsrange :open
      t.bit :mask, limit: 8
      t.bit_varying :bits
      t.money :spent
      t.decimal :rate, precision: 30, scale: 12
      t.binary :logo
      t.xml :feed
      t.macaddr :device
      t.point :place
      t.interval :cycle
      t.timestamps precision: 6
    end
    table :tasks do |t|
      t.references_own :project, :projects
      t.references_own :parent, :tasks, null: true
      t.string :subject_type
      t.bigint :subject_id
      t.text :title, null: false
      t.date :due
      t.time :at
      t.float :estimate
      t.boolean :done, default: false, null: false
      t.tsvector :search
    end
    add_index :tasks, [:subject_type, :subject_id]
    add_index :tasks, :due, where: "NOT done", name: "index_open_tasks"
    table :comments do |t|
      t.references_own :task, :tasks
      t.text :body
      t.json :raw
    end
  end

  # A table whose key is `id`, or the tenant's id with it.
  def table(name, &block)
    key = TENANTS ? { primary_key: [:tenant_id, :id] } : {}
    create_table(name, **key) do |t|
      if TENANTS
        t.text :tenant_id, null: false
        t.bigserial :id, null: false
      end
      t.define_singleton_method(:references_own) { |column, _, null: false| bigint :"#{column}_id", null: null }
      block.call(t)
    end
    references(name)
  end

  REFERENCES = { projects: { owner: :users }, tasks: { project: :projects, parent: :tasks }, comments: { task: :tasks } }

  def references(name)
    REFERENCES.fetch(name, {}).each do |column, parent|
      columns = TENANTS ? %w[tenant_id] : []
      own, theirs = [columns + ["#{column}_id"], columns + ["id"]].map { |list| list.join(", ") }
      execute "ALTER TABLE #{name} ADD CONSTRAINT fk_#{name}_#{column} FOREIGN KEY (#{own}) REFERENCES #{parent} (#{theirs})"
      add_index name, "#{column}_id"
    end
  end

  def unique(name, column)
    add_index name, TENANTS ? [:tenant_id, column] : column, unique: true
  end
end

class AddTriggers < ActiveRecord::Migration[6.1]
  def up
    execute <<~SQL
      CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        NEW.updated_at := '2001-01-01';
        RETURN NEW;
      END;
      $$;
      CREATE TRIGGER touch BEFORE UPDATE ON projects FOR EACH ROW EXECUTE FUNCTION touch();
      CREATE VIEW late_tasks WITH (security_invoker = true) AS SELECT id, title FROM tasks WHERE due < CURRENT_DATE;
      CREATE SEQUENCE ticket_numbers START 100 INCREMENT 10 MAXVALUE 1000000 CYCLE;
      COMMENT ON TABLE projects IS 'Projects; with "quotes" and ''apostrophes''';
    SQL
  end
end

class TrackMigrations
  # Rails itself keeps its versions in the database. Shared tables need the tenant's id, so they have none.
  def self.run
    migrations = { "20260101120000" => CreateProjects, "20260102120000" => AddTriggers }
    ActiveRecord::SchemaMigration.create_table unless TENANTS
    ActiveRecord::InternalMetadata.create_table unless TENANTS
    migrations.each do |version, migration|
      ActiveRecord::Migration.suppress_messages { migration.new.migrate(:up) }
      ActiveRecord::SchemaMigration.create!(version: version) unless TENANTS
    end
  end
end

TrackMigrations.run
config = ActiveRecord::Base.connection_db_config
ActiveRecord::Tasks::DatabaseTasks.db_dir = "."
ActiveRecord::Tasks::PostgreSQLDatabaseTasks.new(config).structure_dump(ARGV.fetch(0), nil)
File.write(ARGV[0], ActiveRecord::Base.connection.dump_schema_information + "\n", mode: "a") unless TENANTS
