//! What each SQLSTATE means: the only table of them, for tenants' servers and for the registry. An exact code comes
//! before its class, which is its first two characters (PostgreSQL's manual, appendix A). The tests ask the server
//! for all codes that it knows.

use tenantry_model::FailureClass::{Fatal, Invalid, Retryable, Unknown};
use tenantry_model::{ErrorCode, FailureClass};

/// What an error of this SQLSTATE means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Whether the statement may have taken effect, and whether a retry can help.
    pub class: FailureClass,
    /// Our code.
    pub code: ErrorCode,
    /// What happened and, where there is one, the fix.
    pub sentence: &'static str,
}

/// Sentence of every error that leaves it open whether the statement took effect.
pub const LOST: &str =
    "the connection to PostgreSQL ended before it replied, so the statement may have taken effect";
const REJECTED: &str = "PostgreSQL rejected a statement";
const TOO_LARGE: &str = "the statement or row exceeds a limit of PostgreSQL: make it smaller";
const READ_ONLY: &str = "PostgreSQL accepts no writes: it is a standby or read-only; name the primary";
const RAISED: &str = "a function or trigger of the tenant's tables rejected it";

/// Codes that a function of a migration has made up for its own RAISE.
const OF_A_FUNCTION: Meaning = Meaning { class: Invalid, code: ErrorCode::Rejected, sentence: RAISED };

type Entry = (&'static str, FailureClass, ErrorCode, &'static str);

#[rustfmt::skip]
const CODES: &[Entry] = &[
    ("08001", Retryable, ErrorCode::Unreachable, "PostgreSQL could not connect to another server; check that it runs"),
    ("08004", Retryable, ErrorCode::Unreachable, "a server refused the connection; check that it runs and takes connections"),
    ("25006", Retryable, ErrorCode::ReadOnly, READ_ONLY),
    ("25P02", Retryable, ErrorCode::RolledBack, "an earlier statement had failed, so PostgreSQL ignored this one; try again"),
    // A restart or an administrator ended the session, perhaps during a commit.
    ("25P03", Unknown, ErrorCode::ConnectionLost, LOST),
    ("25P04", Unknown, ErrorCode::ConnectionLost, LOST),
    ("28000", Fatal, ErrorCode::BadCredentials, "PostgreSQL does not let the role log in: correct the name in the provider's `url` (or `clusters`), or pg_hba.conf"),
    ("28P01", Fatal, ErrorCode::BadCredentials, "PostgreSQL rejects the password: correct it in the provider's `url` (or `clusters`)"),
    ("2BP01", Fatal, ErrorCode::Database, "other objects depend on this one: drop or change them first"),
    ("3D000", Fatal, ErrorCode::NoDatabase, "the database does not exist on the server: create it, or correct its name in the URL"),
    ("3F000", Fatal, ErrorCode::Database, "the schema does not exist: create it, or run `tenantry tenant repair`"),
    ("40001", Retryable, ErrorCode::Serialization, "a concurrent transaction was faster; try again"),
    ("40003", Unknown, ErrorCode::ConnectionLost, LOST),
    ("40P01", Retryable, ErrorCode::Deadlock, "PostgreSQL rolled the transaction back to end a deadlock; try again"),
    ("42501", Fatal, ErrorCode::NotAllowed, "PostgreSQL denies it to this role: grant it what `tenantry doctor` names"),
    ("42602", Invalid, ErrorCode::BadName, "PostgreSQL cannot have this name: change it"),
    ("42622", Invalid, ErrorCode::BadName, "the name is longer than PostgreSQL allows: shorten it"),
    ("42939", Invalid, ErrorCode::BadName, "PostgreSQL reserves the name: change `names` in the template"),
    ("53000", Retryable, ErrorCode::OutOfResources, "PostgreSQL is out of a resource: give it more, or lower its load"),
    ("53100", Retryable, ErrorCode::DiskFull, "PostgreSQL's disk is full: free space on it"),
    ("53200", Retryable, ErrorCode::OutOfResources, "PostgreSQL is out of memory: give it more, or raise the setting that its hint names"),
    ("53300", Retryable, ErrorCode::TooManyConnections, "PostgreSQL has no connection left: raise its `max_connections`, or lower `connections`"),
    ("53400", Retryable, ErrorCode::OutOfResources, "a limit of PostgreSQL's configuration is reached: raise the setting, or free what takes it up"),
    ("54001", Fatal, ErrorCode::Database, "the statement is too complex: simplify it, or raise `max_stack_depth`"),
    ("54011", Fatal, ErrorCode::Database, "the table or query has too many columns: split it"),
    ("54023", Fatal, ErrorCode::Database, "the function has too many arguments: use fewer"),
    ("55006", Retryable, ErrorCode::Busy, "other sessions use the object; try again, or end them"),
    ("55P02", Fatal, ErrorCode::Database, "the setting cannot be changed now: change it in the server's configuration"),
    ("55P03", Retryable, ErrorCode::Busy, "another session has held a lock for too long; try again, or end it"),
    ("55P04", Fatal, ErrorCode::Database, "a new value of an enum cannot be used in the transaction that adds it: put the use into the next file"),
    ("57014", Retryable, ErrorCode::Timeout, "PostgreSQL cancelled a statement that took too long; try again"),
    ("57P01", Unknown, ErrorCode::ConnectionLost, LOST),
    ("57P02", Unknown, ErrorCode::ConnectionLost, LOST),
    ("57P03", Retryable, ErrorCode::Restarting, "PostgreSQL is starting, stopping or recovering; try again"),
    ("57P04", Fatal, ErrorCode::NoDatabase, "the database was dropped while it was in use: run `tenantry tenant repair` and restore a backup"),
    ("57P05", Unknown, ErrorCode::ConnectionLost, LOST),
    ("58P01", Fatal, ErrorCode::IoError, "PostgreSQL lacks a file: install the extension's package, or restore the file"),
    ("58P02", Fatal, ErrorCode::IoError, "PostgreSQL found a file where it creates one: remove it from the data directory"),
    ("58P03", Fatal, ErrorCode::IoError, "the name of a file or extension is too long for PostgreSQL: shorten it"),
    ("F0001", Retryable, ErrorCode::Restarting, "PostgreSQL is still running or stopping; try again"),
    ("HV001", Retryable, ErrorCode::OutOfResources, "a foreign server is out of memory"),
    ("HV014", Retryable, ErrorCode::OutOfResources, "too many handles of foreign servers are open; try again"),
    ("HV00N", Retryable, ErrorCode::Unreachable, "PostgreSQL cannot reach a foreign server: check that it runs"),
    ("P0001", Invalid, ErrorCode::Rejected, RAISED),
    ("P0004", Invalid, ErrorCode::Rejected, RAISED),
    // Two sessions changed one row of the catalogue, or an internal check failed.
    ("XX000", Retryable, ErrorCode::RolledBack, "PostgreSQL reported an internal error; try again"),
];

#[rustfmt::skip]
const CLASSES: &[Entry] = &[
    ("00", Fatal, ErrorCode::Database, "a function reported success as an error: correct its code"),
    ("01", Fatal, ErrorCode::Database, "a function raised a warning as an error: correct its code"),
    ("02", Fatal, ErrorCode::Database, "a function found no row: correct its code or the rows"),
    ("03", Fatal, ErrorCode::Database, "the statement is not complete: correct it"),
    ("08", Unknown, ErrorCode::ConnectionLost, LOST),
    ("09", Fatal, ErrorCode::Database, "a trigger failed: correct its function"),
    ("0A", Fatal, ErrorCode::Database, "PostgreSQL does not support the statement in this form"),
    ("0B", Fatal, ErrorCode::Database, "the transaction cannot begin here: leave the statement out"),
    ("0F", Fatal, ErrorCode::Database, "the large object does not exist or is not open"),
    ("0L", Fatal, ErrorCode::NotAllowed, "the role cannot grant this: it needs the privilege WITH GRANT OPTION, or ADMIN on the role"),
    ("0P", Fatal, ErrorCode::Database, "the role does not exist, or may not be used here: correct its name"),
    ("0Z", Fatal, ErrorCode::Database, "a function asks for an error where there is none: correct its code"),
    ("10", Fatal, ErrorCode::Database, "a query on XML failed: correct it"),
    ("20", Fatal, ErrorCode::Database, "a CASE of a function has no branch for the value: add ELSE"),
    ("21", Fatal, ErrorCode::Database, "a query returned more rows than its place takes: correct it"),
    ("22", Invalid, ErrorCode::BadValue, "a value does not fit its column"),
    ("23", Invalid, ErrorCode::Constraint, "the row violates a constraint"),
    ("24", Fatal, ErrorCode::Database, "a cursor is not in the state that its use needs: correct the function"),
    ("25", Fatal, ErrorCode::Database, "the statement cannot run in this state of the transaction: run it outside of one"),
    ("26", Fatal, ErrorCode::Database, "a prepared statement does not exist: connect to PostgreSQL itself, not to a pooler in transaction mode"),
    ("27", Fatal, ErrorCode::Database, "a trigger changed the row that the statement changes: correct its function"),
    ("28", Fatal, ErrorCode::BadCredentials, "PostgreSQL does not let the role log in: correct the provider's `url` (or `clusters`)"),
    ("2B", Fatal, ErrorCode::Database, "privileges depend on this one: revoke them first"),
    ("2D", Fatal, ErrorCode::Database, "the transaction cannot end here: leave the statement out"),
    ("2F", Fatal, ErrorCode::Database, "a function of the tenant's tables failed: correct its code"),
    ("34", Fatal, ErrorCode::Database, "the cursor does not exist: correct the function"),
    ("38", Fatal, ErrorCode::Database, "a function in another language failed: correct its code"),
    ("39", Fatal, ErrorCode::Database, "a function breaks the protocol of its call: correct its code"),
    ("3B", Fatal, ErrorCode::Database, "the savepoint does not exist: correct the statements before it"),
    ("3D", Fatal, ErrorCode::NoDatabase, "the database does not exist on the server"),
    ("3F", Fatal, ErrorCode::Database, "the schema does not exist"),
    ("40", Retryable, ErrorCode::RolledBack, "PostgreSQL rolled the transaction back; try again"),
    ("42", Fatal, ErrorCode::Database, REJECTED),
    ("44", Invalid, ErrorCode::Constraint, "the row does not satisfy the condition of the view that it is written through"),
    ("53", Retryable, ErrorCode::OutOfResources, "PostgreSQL is out of memory or another resource"),
    ("54", Invalid, ErrorCode::TooBig, TOO_LARGE),
    ("55", Fatal, ErrorCode::Database, "the object is not in the state that the statement needs"),
    ("57", Unknown, ErrorCode::ConnectionLost, LOST),
    ("58", Retryable, ErrorCode::IoError, "PostgreSQL cannot read or write its files: check its disk"),
    ("72", Retryable, ErrorCode::RolledBack, "the transaction took so long that its snapshot is gone; try again"),
    ("F0", Fatal, ErrorCode::Database, "PostgreSQL's configuration file has a fault: correct it"),
    ("HV", Fatal, ErrorCode::Database, "a foreign server or its wrapper failed: see that server's log"),
    ("P0", Fatal, ErrorCode::Database, "a function of the tenant's tables failed: correct its code"),
    ("XX", Fatal, ErrorCode::Corrupt, "PostgreSQL's data is damaged: restore it from a backup"),
];

/// What the table says about a SQLSTATE; none if neither the code nor its class is listed.
pub fn listed(sqlstate: &str) -> Option<Meaning> {
    let class = sqlstate.get(..2).unwrap_or_default();
    let find = |table: &[Entry], word: &str| table.iter().find(|entry| entry.0 == word).copied();
    let (_, class, code, sentence) = find(CODES, sqlstate).or_else(|| find(CLASSES, class))?;
    Some(Meaning { class, code, sentence })
}

/// What a SQLSTATE means. One that PostgreSQL does not have comes from a function of the tenant's tables.
pub fn meaning(sqlstate: &str) -> Meaning {
    listed(sqlstate).unwrap_or(OF_A_FUNCTION)
}

/// All codes and classes of the table.
pub fn entries() -> impl Iterator<Item = &'static str> {
    CODES.iter().chain(CLASSES).map(|entry| entry.0)
}
