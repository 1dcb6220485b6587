//! A case of the fuzzer: everything that a seed decides. The same seed gives the same case.

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::known::{Grammar, Table};
use super::layout::Tool;
use super::{code, extensions, hostile, known::Column, tables};
use crate::postgres::{MODELS, Model};

/// A migration file before its tool's marks.
#[derive(Clone, Debug)]
pub struct File {
    /// Without semicolons at their ends.
    pub statements: Vec<String>,
    /// False: its only statement runs outside of a transaction.
    pub transaction: bool,
}

/// A set of migrations, and for which provider it is.
#[derive(Clone)]
pub struct Case {
    pub seed: u64,
    pub model: Model,
    /// Whether the administrator is a superuser; otherwise it has only the privileges that the guide asks for.
    pub superuser: bool,
    pub tool: Tool,
    /// Number of hash partitions of shared tables.
    pub partitions: u16,
    pub files: Vec<File>,
    /// Number of files that are added when tenants have rows already.
    pub later: usize,
}

/// Hash partitions of some pools.
const PARTITIONS: u16 = 2;

type Production = fn(&mut Grammar) -> Vec<String>;

/// Productions that most schemas have, with their weights.
const ORDINARY: [(usize, Production); 19] = [
    (12, tables::table),
    (8, tables::odd_table),
    (10, tables::child),
    (4, tables::circle),
    (8, tables::partitioned),
    (5, tables::inherited),
    (12, tables::altered),
    (8, tables::index),
    (6, tables::kind),
    (6, extensions::extension),
    (5, tables::sequence),
    (3, tables::rows),
    (3, tables::dropped),
    (8, code::function),
    (8, code::trigger),
    (9, code::view),
    (6, code::derived),
    (7, code::block),
    (3, code::grant),
];

impl Case {
    /// The case of a seed; consecutive seeds take the isolations in turn.
    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let model = MODELS[(seed % 3) as usize];
        let tool = Tool::ALL[random.random_range(0..Tool::ALL.len())];
        let superuser = random.random_ratio(1, 2);
        let partitions = if model == Model::Pool && random.random_ratio(1, 6) { PARTITIONS } else { 0 };
        let is_hostile = random.random_ratio(2, 5);
        let mut grammar = Grammar::new(random, model);
        let first = [vec![canary(&mut grammar)], tables::table(&mut grammar)].concat();
        let mut files = vec![File { statements: first, transaction: true }];
        let count = 1 + grammar.number(4);
        let bad = if is_hostile { grammar.number(count) } else { count };
        for number in 0..count {
            files.push(file(&mut grammar, number == bad));
        }
        let later = grammar.number(3).min(count);
        Self { seed, model, superuser, tool, partitions, files, later }
    }
}

/// The table of the canary row, which every set has.
fn canary(grammar: &mut Grammar) -> String {
    let column = |name: &str, kind: &str| Column { name: name.to_owned(), kind: kind.to_owned() };
    let key = vec![column("tenant_id", "text"), column("id", "text")];
    let columns = [key.clone(), vec![column("n", "int")]].concat();
    grammar.tables.push(Table { name: "t".to_owned(), columns, key, is_partitioned: false });
    "CREATE TABLE t (tenant_id text NOT NULL, id text NOT NULL, n int, PRIMARY KEY (tenant_id, id))"
        .to_owned()
}

fn file(grammar: &mut Grammar, is_bad: bool) -> File {
    if !is_bad && grammar.percent(6) {
        let (table, name) = (grammar.table(), grammar.name("late"));
        let owner = if grammar.is_shared() { "tenant_id" } else { "(1)" };
        let sql = format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {} ({owner})", table.name);
        if !table.is_partitioned {
            return File { statements: vec![sql], transaction: false };
        }
    }
    let mut statements = Vec::new();
    let count = 1 + grammar.number(5);
    let at = grammar.number(count);
    for number in 0..count {
        if is_bad && number == at {
            statements.extend(hostile::statement(grammar));
        }
        let production = draw(grammar);
        statements.extend(production(grammar));
    }
    File { statements, transaction: true }
}

fn draw(grammar: &mut Grammar) -> Production {
    let mut left = grammar.number(ORDINARY.iter().map(|(weight, _)| weight).sum());
    for (weight, production) in ORDINARY {
        if left < weight {
            return production;
        }
        left -= weight;
    }
    tables::table
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, model, superuser, tool, partitions, files, later } = self;
        writeln!(
            f,
            "case TENANTRY_TEST_SEED={seed}: {model:?}, superuser: {superuser}, {tool:?}, {partitions} partitions, the last {later} files come later"
        )?;
        for (number, file) in files.iter().enumerate() {
            writeln!(f, "-- {}", tool.name(number, file.transaction))?;
            for statement in &file.statements {
                writeln!(f, "{statement};")?;
            }
        }
        Ok(())
    }
}
