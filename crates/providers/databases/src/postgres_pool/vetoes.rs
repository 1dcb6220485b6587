//! DELETE triggers of shared tables, which could stop the removal of a tenant's rows or write rows of it again. A removal
//! pauses them if the administrator may do that. Otherwise the condition of each must exempt Tenantry's role.

use std::ops::Range;

use tenantry_model::{Failure, FailureClass};
use tenantry_postgres::Session;

use crate::migrations::{Token, TokenKind, tokens};
use crate::postgres::{failure, replica, run};
use crate::tables::literal;

/// Words of a condition that depends on the current role alone.
const OF_ROLES: [&str; 6] =
    ["current_user", "current_role", "session_user", "user", "has_table_privilege", "pg_has_role"];
/// Other words that such a condition may have.
const NEUTRAL: [&str; 18] = [
    "not",
    "and",
    "or",
    "is",
    "null",
    "true",
    "false",
    "distinct",
    "from",
    "in",
    "any",
    "all",
    "array",
    "pg_catalog",
    "name",
    "text",
    "regclass",
    "oid",
];

/// A trigger that runs on DELETE.
pub struct DeleteTrigger {
    table: String,
    /// The table's name as SQL writes it.
    relation: String,
    name: String,
    /// Whether it runs although triggers are paused.
    is_always: bool,
    /// Whether its condition is false for Tenantry's role.
    is_exempt: bool,
}

/// Reads the DELETE triggers of a schema's tables. Those of partitions that follow their table's are not listed.
pub async fn read(transaction: &mut Session, schema: &str) -> Result<Vec<DeleteTrigger>, Failure> {
    let rows = transaction
        .rows(
            "SELECT relname::text, quote_ident(relname) AS relation, tgname::text, tgenabled IN ('A', 'R') AS always, pg_get_triggerdef(t.oid) AS definition
             FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
             WHERE relnamespace = to_regnamespace(quote_ident($1)) AND relkind IN ('r', 'p') AND NOT tgisinternal AND tgparentid = 0
               AND tgtype & 8 <> 0 AND tgenabled <> 'D' ORDER BY 1, 2",
            &[&schema],
        )
        .await
        .map_err(failure)?;
    let mut triggers = Vec::new();
    for row in rows {
        let is_exempt = exempts(transaction, row.get("definition")).await?;
        let [table, relation, name] = ["relname", "relation", "tgname"].map(|column| row.get(column));
        triggers.push(DeleteTrigger { table, relation, name, is_always: row.get("always"), is_exempt });
    }
    Ok(triggers)
}

/// A sentence for each trigger that could stop a removal.
pub async fn faults(transaction: &mut Session, schema: &str) -> Result<Vec<String>, Failure> {
    let triggers = read(transaction, schema).await?;
    if triggers.iter().all(|trigger| trigger.is_exempt) {
        return Ok(Vec::new());
    }
    let may_pause = replica::is_allowed(transaction).await?;
    let administrator: String =
        transaction.one("SELECT quote_ident(current_user)", &[]).await.map_err(failure)?;
    let can_veto = |trigger: &&DeleteTrigger| !trigger.is_exempt && (trigger.is_always || !may_pause);
    let faults = triggers.iter().filter(can_veto).map(|DeleteTrigger { table, relation, name, is_always, .. }| {
        let relation = literal(relation);
        let or = match (is_always, may_pause) {
            (true, _) => "leave ENABLE ALWAYS and ENABLE REPLICA out".to_owned(),
            (false, _) => format!("run GRANT SET ON PARAMETER session_replication_role TO {administrator} as a superuser"),
        };
        format!(
            "table `{table}`: the DELETE trigger `{name}` could stop the removal of a tenant: exempt Tenantry's role by \
             WHEN (NOT has_table_privilege({relation}::regclass, 'TRUNCATE')), or {or}"
        )
    });
    Ok(faults.collect())
}

/// The failure `why` of a removal. If triggers have run that could have stopped it, or have kept rows, it names them.
pub fn blocked(triggers: &[DeleteTrigger], paused: bool, why: Failure) -> Failure {
    let stops = matches!(why.class, FailureClass::Invalid | FailureClass::Fatal);
    let names: Vec<String> = triggers
        .iter()
        .filter(|it| !it.is_exempt && (it.is_always || !paused))
        .map(|DeleteTrigger { table, name, .. }| format!("`{name}` of `{table}`"))
        .collect();
    if names.is_empty() || !stops {
        return why;
    }
    Failure::fatal(
        "removal_blocked",
        format!(
            "DELETE triggers stop the removal of the tenant's rows: {}; drop the trigger, or exempt Tenantry's role by its WHEN ({})",
            why.message,
            names.join(", ")
        ),
    )
}

/// Whether a trigger's WHEN has a condition on the current role, joined by AND, that is false for Tenantry's role.
async fn exempts(transaction: &mut Session, definition: &str) -> Result<bool, Failure> {
    for condition in conditions(definition) {
        run(transaction, "SAVEPOINT condition".to_owned()).await?;
        let fires = transaction.one::<bool>(&format!("SELECT ({condition}) IS TRUE"), &[]).await;
        // A condition that fails, for instance because its role is missing, stops the DELETE too.
        let end =
            if fires.is_ok() { "RELEASE condition" } else { "ROLLBACK TO condition; RELEASE condition" };
        run(transaction, end.to_owned()).await?;
        if fires.is_ok_and(|fires| !fires) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The conditions on the current role alone that a trigger's definition joins by AND, as the server prints it.
fn conditions(definition: &str) -> Vec<&str> {
    let all = tokens(definition);
    let Some(when) = all.iter().position(|token| token.is("when")) else { return Vec::new() };
    let mut found = Vec::new();
    let inside = closing(&all, when + 1).map_or(0..0, |end| when + 2..end);
    split(&all, inside, &mut found);
    let text = |range: Range<usize>| {
        let (first, last) = (all.get(range.start)?, all.get(range.end.checked_sub(1)?)?);
        definition.get(first.at..last.at + last.text.len())
    };
    found
        .into_iter()
        .filter(|range| all.get(range.clone()).is_some_and(is_of_role))
        .filter_map(text)
        .collect()
}

/// Splits tokens at each AND outside of parentheses, and in the parentheses around a whole part.
fn split(all: &[Token<'_>], range: Range<usize>, found: &mut Vec<Range<usize>>) {
    let (mut begin, mut at, mut ands) = (range.start, range.start, false);
    while at < range.end {
        match all.get(at) {
            Some(token) if token.is("and") => {
                split(all, begin..at, found);
                (begin, ands) = (at + 1, true);
            }
            Some(Token { kind: TokenKind::OpenParen, .. }) => at = closing(all, at).unwrap_or(range.end),
            _ => {}
        }
        at += 1;
    }
    match closing(all, begin) {
        _ if ands => split(all, begin..range.end, found),
        Some(end) if end + 1 == range.end => split(all, begin + 1..end, found),
        _ => found.push(range),
    }
}

/// The parenthesis that closes the one at this token.
fn closing(all: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in all.iter().enumerate().skip(open) {
        match token.kind {
            TokenKind::OpenParen => depth += 1,
            TokenKind::CloseParen => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return (token.kind == TokenKind::CloseParen).then_some(at);
        }
    }
    None
}

/// Whether a condition depends on the current role, and on nothing else that changes.
fn is_of_role(condition: &[Token<'_>]) -> bool {
    let mut names = condition
        .iter()
        .filter(|token| matches!(token.kind, TokenKind::Ident | TokenKind::QuotedIdent { .. }));
    condition.iter().any(|token| token.is_any(&OF_ROLES))
        && names.all(|token| token.is_any(&OF_ROLES) || token.is_any(&NEUTRAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_on_the_role_alone_are_found() {
        for (when, found) in [
            ("(CURRENT_USER <> 'tenantry'::name)", &["CURRENT_USER <> 'tenantry'::name"][..]),
            (
                "((old.closed AND (SESSION_USER <> ALL (ARRAY['a'::name, 'b'::name]))) AND (NOT has_table_privilege('t'::regclass, 'TRUNCATE'::text)))",
                &[
                    "SESSION_USER <> ALL (ARRAY['a'::name, 'b'::name])",
                    "NOT has_table_privilege('t'::regclass, 'TRUNCATE'::text)",
                ],
            ),
            ("(pg_has_role(CURRENT_USER, 'x'::name, 'MEMBER'::text) OR old.closed)", &[]),
            ("((CURRENT_USER = old.author) AND true)", &[]),
            ("((CURRENT_USER <> 'a'::name) OR (random() < 0.5))", &[]),
            ("(old.\"user\" IS NULL)", &[]),
            ("(true)", &[]),
        ] {
            let definition = format!(
                "CREATE TRIGGER \"when\" BEFORE DELETE ON t FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION f('when')"
            );
            assert_eq!(conditions(&definition), found, "{when}");
        }
        assert_eq!(
            conditions(
                "CREATE TRIGGER x BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION f('when (current_user)')"
            ),
            [""; 0]
        );
    }
}
