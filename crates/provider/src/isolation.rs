//! Results of isolation checks: which actor attempted which access under which isolation model, and the
//! outcome. A provider that can check its own tenants implements [`IsolationCheck`].

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::{Failure, Isolation, TenantId};

/// Most findings that a cell lists; it counts all of them.
const NAMED: usize = 20;

/// Actor of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// The canary tenant, through its own login.
    TenantLogin,
    /// The canary tenant, through the connection pooler that tenants' applications use.
    PooledLogin,
    /// No login: read from the server's catalogue.
    Catalogue,
}

/// Outcome of the attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All attempts were denied.
    Denied,
    /// At least one attempt succeeded.
    Leak,
    /// A tenant has so much of what tenants share that others wait or could run out of it.
    Obstruction,
    /// Not checked; `why` holds the reason.
    NotChecked,
}

/// One cell of the matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cell {
    /// Isolation model of the tenants.
    pub model: Isolation,
    /// Actor of the attempts.
    pub who: Who,
    /// The attempted access, as a word that is stable across reports.
    pub what: String,
    /// Outcome of the attempts.
    pub outcome: Outcome,
    /// Number of attempts.
    pub tried: u64,
    /// Number of attempts that succeeded.
    pub leaks: u64,
    /// Names of the roles, tables and databases concerned, never rows. The first 20.
    pub found: Vec<String>,
    /// Why the cell, or a part of it, could not be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Result of one provider's check.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The provider's cells of the matrix.
    pub cells: Vec<Cell>,
    /// Assumptions of the check, one sentence each.
    pub trusted: Vec<String>,
}

/// Checks the isolation of a provider's tenants. Changes none of their data.
#[async_trait]
pub trait IsolationCheck: Send + Sync {
    /// Attempts to access these tenants' data, and reads the protections of all tenants. The cost per given
    /// tenant does not depend on how many tenants exist.
    async fn check(&self, tenants: &[TenantId]) -> Result<Checked, Failure>;
}

/// Collects the cells of a matrix.
#[derive(Debug)]
pub struct Findings {
    model: Isolation,
    cells: BTreeMap<(Who, &'static str), Cell>,
}

impl Findings {
    /// An empty matrix.
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

    /// Counts a denied attempt.
    pub fn denied(&mut self, who: Who, what: &'static str) {
        let cell = self.cell(who, what);
        cell.tried += 1;
        if cell.outcome == Outcome::NotChecked {
            cell.outcome = Outcome::Denied;
        }
    }

    /// Counts a successful attempt and its place.
    pub fn leak(&mut self, who: Who, what: &'static str, found: String) {
        let cell = self.cell(who, what);
        (cell.tried, cell.leaks, cell.outcome) = (cell.tried + 1, cell.leaks + 1, Outcome::Leak);
        if cell.found.len() < NAMED {
            cell.found.push(found);
        }
    }

    /// Records why an access could not be attempted.
    pub fn not_checked(&mut self, who: Who, what: &'static str, why: &str) {
        self.cell(who, what).why.get_or_insert_with(|| why.to_owned());
    }

    /// Records why a login could attempt none of these accesses, nor the ones that every login attempts.
    pub fn none_checked(&mut self, who: Who, whats: &[&'static str], why: &str) {
        for what in
            whats.iter().chain(&["set_role", "set_session_authorization", "catalogue", "large_objects"])
        {
            self.not_checked(who, what, why);
        }
    }

    /// Records that only `met` of `given` tenants were found; the others are not checked.
    pub fn met(&mut self, what: &'static str, given: usize, met: usize) {
        if met < given {
            let why =
                format!("{} of {given} tenants do not exist on the server or are incomplete", given - met);
            self.not_checked(Who::TenantLogin, what, &why);
        }
    }

    /// Counts the names that a catalogue query found as leaks; no name counts as denied.
    pub fn read(&mut self, what: &'static str, found: Vec<String>) {
        if found.is_empty() {
            self.denied(Who::Catalogue, what);
        }
        for name in found {
            self.leak(Who::Catalogue, what, name);
        }
    }

    /// Counts what a catalogue query found as obstructions; none counts as denied.
    pub fn obstructions(&mut self, what: &'static str, found: Vec<String>) {
        if found.is_empty() {
            self.denied(Who::Catalogue, what);
        }
        for obstruction in found {
            let cell = self.cell(Who::Catalogue, what);
            (cell.tried, cell.outcome) = (cell.tried + 1, Outcome::Obstruction);
            if cell.found.len() < NAMED {
                cell.found.push(obstruction);
            }
        }
    }

    /// The cells of the matrix.
    pub fn cells(self) -> Vec<Cell> {
        self.cells.into_values().collect()
    }
}
