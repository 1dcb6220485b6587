//! What the statements so far have created, so that later ones refer to real objects, and names for new ones.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use crate::postgres::Model;

/// A column: its name as SQL, and its type.
#[derive(Clone)]
pub struct Column {
    pub name: String,
    pub kind: String,
}

/// A table: its name as SQL, its columns, and those of its primary key.
#[derive(Clone)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    pub key: Vec<Column>,
    pub is_partitioned: bool,
}

impl Table {
    /// The names of columns, separated by commas.
    pub fn list(columns: &[Column]) -> String {
        columns.iter().map(|column| &*column.name).collect::<Vec<_>>().join(", ")
    }

    /// A column of this type.
    pub fn of_kind(&self, kind: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.kind == kind)
    }
}

/// A generator of statements, with what they have created.
pub struct Grammar {
    pub random: StdRng,
    pub model: Model,
    pub tables: Vec<Table>,
    /// Types that columns may have beside those of PostgreSQL.
    pub kinds: Vec<String>,
    pub sequences: Vec<String>,
    pub views: Vec<String>,
    /// Functions without arguments.
    pub functions: Vec<String>,
    count: usize,
}

impl Grammar {
    pub fn new(random: StdRng, model: Model) -> Self {
        let none = Vec::new;
        let (tables, [kinds, sequences, views, functions]) = (Vec::new(), [none(), none(), none(), none()]);
        Self { random, model, tables, kinds, sequences, views, functions, count: 0 }
    }

    /// Whether tenants share the tables.
    pub fn is_shared(&self) -> bool {
        self.model == Model::Pool
    }

    /// True in this many of a hundred calls.
    pub fn percent(&mut self, chance: u32) -> bool {
        self.random.random_ratio(chance, 100)
    }

    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.random).copied().unwrap_or_default()
    }

    pub fn number(&mut self, below: usize) -> usize {
        self.random.random_range(0..below.max(1))
    }

    /// A table that exists. The first one, which has the canary's row, stays as it is once there are others.
    pub fn table(&mut self) -> Table {
        let others = self.tables.get(1..).filter(|others| !others.is_empty()).unwrap_or(&self.tables);
        others.choose(&mut self.random).expect("the first statement creates a table").clone()
    }

    /// A new name, as SQL; sometimes an odd one.
    pub fn name(&mut self, stem: &str) -> String {
        self.count += 1;
        let n = self.count;
        if !self.percent(25) {
            return format!("{stem}_{n}");
        }
        match self.number(10) {
            0 => format!("\"Odd \"\"{stem}\"\" {n}\""),
            1 => format!("\"größe 漢 🎉 {n}\""),
            2 => format!("\"select{n}\""),
            3 => format!("\"{stem}; DROP TABLE t; -- {n}\""),
            4 => format!("\"{stem}.{n}\""),
            5 => format!("\"Upper{n}\""),
            6 => format!("\"$${n}$$ '\""),
            7 => format!("{stem}_{n}_{}", "x".repeat(50)),
            8 if !self.is_shared() => format!("_{stem}_{n}"),
            9 => format!("\"{n}\\n%s%I\""),
            _ => format!("{stem}${n}"),
        }
    }

    /// A text literal.
    pub fn text(&mut self) -> &'static str {
        self.pick(&[
            "'plain'",
            "'it''s; -- ok'",
            "E'a\\'b;\\n'",
            "$$a;b$$",
            "$x$ $$ ; ' $x$",
            "'größe 漢 🎉'",
            "''",
            "U&'d\\0061t\\+000061'",
        ])
    }

    /// Something that a reader of SQL must skip before a statement.
    pub fn noise(&mut self) -> &'static str {
        self.pick(&[
            "",
            "",
            "",
            "-- it's a comment; with ; semicolons\n",
            "/* one /* nested; ' */ \" two */ ",
            "\n\n\t",
            ";",
            "/* -- */\n-- /*\n",
        ])
    }
}
