//! One transaction of the writer: guards in bulk, then the effects of the units that passed, in bulk.
//!
//! Statements go wave by wave: two changes of one row of one unit are in different waves. In a wave conditions come
//! first, then rows that may conflict, then effects; so a unit that fails has usually written nothing yet.

use std::collections::HashSet;

use tenantry_model::Datum;

use super::connection::{Connection, Failed};
use super::sql::{Shape, Verb};
use super::unit::{Prepared, Rejected};
use super::writer::Statements;

/// What an error names instead of a table when the transaction as a whole may or may not have ended.
pub(super) const TRANSACTION: &str = "transaction";

/// How a transaction ended, with one answer per unit (none: passed).
pub(super) enum Attempt {
    /// Committed what passed.
    Committed(Vec<Option<Rejected>>),
    /// Nothing passed, nothing is written.
    Rejected(Vec<Option<Rejected>>),
    /// Rolled back, although some passed: a rejected unit had already written something.
    Mixed(Vec<Option<Rejected>>),
}

/// Items of one shape: (unit, item).
struct Group {
    shape: Shape,
    members: Vec<(usize, usize)>,
}

/// Writes the units in the transaction that was begun, and ends it. On an error, which names the table, the caller must
/// roll back.
pub(super) async fn attempt(
    connection: &mut Connection,
    statements: &mut Statements,
    units: &[&Prepared],
) -> Result<Attempt, (Failed, &'static str)> {
    let mut rejected: Vec<Option<Rejected>> = vec![None; units.len()];
    if units.iter().any(|unit| unit.epoch.is_some()) {
        let current = connection.epoch().await.map_err(|e| (e, "runner"))?;
        for (unit, rejection) in units.iter().zip(&mut rejected) {
            if unit.epoch.is_some_and(|epoch| epoch < current) {
                *rejection = Some(Rejected::Stale { table: "runner", key: "1".to_owned() });
            }
        }
    }
    let mut wrote = vec![false; units.len()];
    let last = units.iter().flat_map(|unit| &unit.items).map(|item| item.wave).max().unwrap_or(0);
    for wave in 0..=last {
        for group in groups(units, wave) {
            let table = statements.schema.at(group.shape.table).name;
            let members = || group.members.iter().filter(|(unit, _)| rejected[*unit].is_none());
            let rows: Vec<&[Datum]> =
                members().map(|(unit, item)| units[*unit].items[*item].cells.as_slice()).collect();
            if rows.is_empty() {
                continue;
            }
            let keys = connection.run(statements, group.shape, &rows).await.map_err(|e| (e, table))?;
            if !group.shape.returns_keys() {
                members().for_each(|(unit, _)| wrote[*unit] = true);
                continue;
            }
            let passed: HashSet<&str> = keys.iter().map(String::as_str).collect();
            for (unit, item) in &group.members {
                let key = &units[*unit].items[*item].key;
                if passed.contains(key.as_str()) {
                    wrote[*unit] |= group.shape.verb != Verb::Check;
                } else if rejected[*unit].is_none() {
                    rejected[*unit] = Some(match group.shape.verb {
                        Verb::InsertGuard => Rejected::Conflict { table },
                        _ => Rejected::Stale { table, key: key.clone() },
                    });
                }
            }
        }
    }
    let failed = |e| (e, TRANSACTION);
    let left_something = rejected.iter().zip(&wrote).any(|(rejection, wrote)| rejection.is_some() && *wrote);
    if left_something && units.len() > 1 {
        connection.rollback().await.map_err(failed)?;
        return Ok(Attempt::Mixed(rejected));
    }
    if left_something || rejected.iter().all(Option::is_some) {
        connection.rollback().await.map_err(failed)?;
        return Ok(Attempt::Rejected(rejected));
    }
    connection.commit().await.map_err(failed)?;
    Ok(Attempt::Committed(rejected))
}

/// The items of a wave by shape, in the order in which their statements must run.
fn groups(units: &[&Prepared], wave: u16) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (u, unit) in units.iter().enumerate() {
        for (i, item) in unit.items.iter().enumerate().filter(|(_, item)| item.wave == wave) {
            match groups.iter_mut().find(|group| group.shape == item.shape) {
                Some(group) => group.members.push((u, i)),
                None => groups.push(Group { shape: item.shape, members: vec![(u, i)] }),
            }
        }
    }
    groups.sort_by_key(|group| match group.shape.verb {
        Verb::Check => 0,
        Verb::Update if group.shape.returns_keys() => 1,
        Verb::InsertGuard => 2,
        Verb::Delete => 3,
        Verb::Update => 4,
        Verb::Upsert | Verb::Insert | Verb::InsertAbsent => 5,
    });
    groups
}
