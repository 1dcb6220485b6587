//! What a check of tenants' isolation says: who tried what, in which model, and what came of it. A provider that can
//! check its own tenants keeps to [`IsolationCheck`]; the control plane knows no more than this.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::{Failure, Isolation, TenantId};

/// Most findings that a cell names; it counts all of them.
const NAMED: usize = 20;

/// Who tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// A tenant that was made for the check as every tenant is, by its own login.
    TenantLogin,
    /// The same, through the pooler through which tenants' applications connect.
    PooledLogin,
    /// Nobody: it was read from the server's catalogue.
    Catalogue,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nobody gets through.
    Denied,
    /// Somebody does.
    Leak,
    /// Nothing is known; `why` says the reason.
    NotChecked,
}

/// One field of the matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cell {
    /// How tenants are kept apart.
    pub model: Isolation,
    /// Who tried.
    pub who: Who,
    /// What was tried: a word that stays the same from report to report.
    pub what: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How often it was tried.
    pub tried: u64,
    /// How often somebody got through.
    pub leaks: u64,
    /// Where: the names of roles, tables and databases, never rows. The first 20.
    pub found: Vec<String>,
    /// Why it, or a part of it, could not be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a provider found out.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Its part of the matrix.
    pub cells: Vec<Cell>,
    /// What was taken for granted, a sentence each.
    pub trusted: Vec<String>,
}

/// Checks that a provider's tenants are kept apart. Changes nothing of theirs.
#[async_trait]
pub trait IsolationCheck: Send + Sync {
    /// Tries to get at these tenants, and reads what protects all of them. Each costs the same, however many there are.
    async fn check(&self, tenants: &[TenantId]) -> Result<Checked, Failure>;
}

/// Collects cells.
#[derive(Debug)]
pub struct Findings {
    model: Isolation,
    cells: BTreeMap<(Who, &'static str), Cell>,
}

impl Findings {
    /// None yet.
    pub fn new(model: Isolation) -> Self {
        Self { model, cells: BTreeMap::new() }
    }

    fn cell(&mut self, who: Who, what: &'static str) -> &mut Cell {
        self.cells.entry((who, what)).or_insert_with(|| Cell {
            model: self.model,
            who,
            what: what.to_owned(),
            outcome: Outcome::NotChecked,
            tried: 0,
            leaks: 0,
            found: Vec::new(),
            why: None,
        })
    }

    /// Nobody got through.
    pub fn denied(&mut self, who: Who, what: &'static str) {
        let cell = self.cell(who, what);
        cell.tried += 1;
        if cell.outcome == Outcome::NotChecked {
            cell.outcome = Outcome::Denied;
        }
    }

    /// Somebody got through, here.
    pub fn leak(&mut self, who: Who, what: &'static str, found: String) {
        let cell = self.cell(who, what);
        (cell.tried, cell.leaks, cell.outcome) = (cell.tried + 1, cell.leaks + 1, Outcome::Leak);
        if cell.found.len() < NAMED {
            cell.found.push(found);
        }
    }

    /// It could not be tried.
    pub fn not_checked(&mut self, who: Who, what: &'static str, why: &str) {
        self.cell(who, what).why.get_or_insert_with(|| why.to_owned());
    }

    /// A login could try none of these.
    pub fn none_checked(&mut self, who: Who, whats: &[&'static str], why: &str) {
        for what in
            whats.iter().chain(&["set_role", "set_session_authorization", "catalogue", "large_objects"])
        {
            self.not_checked(who, what, why);
        }
    }

    /// Of so many tenants, so many were found where they should be: nothing is known of the others.
    pub fn met(&mut self, what: &'static str, given: usize, met: usize) {
        if met < given {
            let why = format!("{} of {given} tenants are not on the server, or not complete", given - met);
            self.not_checked(Who::TenantLogin, what, &why);
        }
    }

    /// A catalogue's answer: every name in it is a leak, and none at all is as it should be.
    pub fn read(&mut self, what: &'static str, found: Vec<String>) {
        if found.is_empty() {
            self.denied(Who::Catalogue, what);
        }
        for name in found {
            self.leak(Who::Catalogue, what, name);
        }
    }

    /// The matrix.
    pub fn cells(self) -> Vec<Cell> {
        self.cells.into_values().collect()
    }
}
