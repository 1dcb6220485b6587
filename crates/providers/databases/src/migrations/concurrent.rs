//! Statements with CONCURRENTLY, and others that do not run in a transaction: how a trial in one transaction runs them.

use super::postgres::tokens;

/// Whether the statement takes effect beside other sessions' work on the table.
pub fn is_concurrent(statement: &str) -> bool {
    tokens(statement).iter().any(|token| token.is("concurrently"))
}

/// The statement in a form that can run in a transaction: without CONCURRENTLY; none for VACUUM and forms of REINDEX.
pub fn in_transaction(statement: &str) -> Option<String> {
    let tokens = tokens(statement);
    let [first, second, ..] = tokens.as_slice() else { return Some(statement.to_owned()) };
    let is_plain_reindex = second.is_any(&["index", "table"]);
    if first.is("vacuum") || first.is("reindex") && !is_plain_reindex {
        return None;
    }
    let mut sql = statement.to_owned();
    if let Some(word) = tokens.iter().find(|token| token.is("concurrently")).filter(|_| !first.is("refresh"))
    {
        sql.replace_range(word.at..word.at + word.text.len(), "");
    }
    Some(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_run_in_a_transaction() {
        for (statement, tried) in [
            ("CREATE INDEX CONCURRENTLY i ON t (a)", Some("CREATE INDEX  i ON t (a)")),
            (
                "create unique index\nconcurrently if not exists i ON t (a)",
                Some("create unique index\n if not exists i ON t (a)"),
            ),
            (
                "ALTER TABLE a.t DETACH PARTITION a.p CONCURRENTLY",
                Some("ALTER TABLE a.t DETACH PARTITION a.p "),
            ),
            ("REFRESH MATERIALIZED VIEW CONCURRENTLY v", Some("REFRESH MATERIALIZED VIEW CONCURRENTLY v")),
            ("REINDEX TABLE CONCURRENTLY t", Some("REINDEX TABLE  t")),
            ("REINDEX (CONCURRENTLY) TABLE t", None),
            ("VACUUM t", None),
        ] {
            assert_eq!(in_transaction(statement).as_deref(), tried);
        }
    }
}
