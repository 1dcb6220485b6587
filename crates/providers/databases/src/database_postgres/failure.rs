//! What PostgreSQL's errors mean for the next attempt. Messages name objects, never values: details, which quote rows,
//! are left out.

use sqlx::postgres::PgDatabaseError;
use tenantry_model::Failure;

/// What an error means that came before anything was sent: there is no connection, or none is free.
pub fn connecting(error: sqlx::Error) -> Failure {
    match &error {
        sqlx::Error::PoolTimedOut => Failure::retryable(
            "busy",
            "no connection to PostgreSQL came free: it does not answer, or `connections` is too low",
        ),
        sqlx::Error::Io(why) => {
            Failure::retryable("unreachable", format!("PostgreSQL cannot be reached: {}", why.kind()))
        }
        sqlx::Error::Tls(_) => Failure::retryable(
            "unreachable",
            "PostgreSQL cannot be reached safely: check `sslmode` and the certificate",
        ),
        sqlx::Error::Database(_) => match failure(error) {
            // Whoever is not let in has done nothing.
            lost if lost.code == "connection_lost" => Failure::retryable("restarting", lost.message),
            other => other,
        },
        _ => Failure::retryable("unreachable", "PostgreSQL does not let us in as expected"),
    }
}

/// What an error of a statement means.
pub fn failure(error: sqlx::Error) -> Failure {
    let sqlx::Error::Database(database) = &error else {
        return match error {
            sqlx::Error::PoolTimedOut => connecting(error),
            sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::Protocol(_) => lost(),
            // Others can quote values.
            _ => Failure::fatal("database", "PostgreSQL gave an answer of an unexpected form"),
        };
    };
    match database.try_downcast_ref::<PgDatabaseError>() {
        Some(error) => by_code(error.code(), error.message()),
        None => Failure::fatal("database", "PostgreSQL gave an answer of an unexpected form"),
    }
}

/// By SQLSTATE (PostgreSQL's appendix A).
fn by_code(code: &str, text: &str) -> Failure {
    match code {
        "53300" => Failure::retryable(
            "too_many_connections",
            "PostgreSQL has no connection left: raise its `max_connections`, or lower ours",
        ),
        "53100" => Failure::retryable("disk_full", "PostgreSQL's disk is full: make room"),
        "57P03" => Failure::retryable("restarting", "PostgreSQL is starting, stopping or recovering"),
        "57014" => Failure::retryable("timeout", "PostgreSQL took too long over a statement and gave it up"),
        "40P01" => Failure::retryable("deadlock", "PostgreSQL broke a deadlock by ending this transaction"),
        "40001" => Failure::retryable("serialization", "another transaction was faster"),
        "55P03" => Failure::retryable("busy", "another session holds a lock for too long"),
        "55006" => Failure::retryable("busy", "another session is connected to the database"),
        "25006" => Failure::retryable(
            "read_only",
            "PostgreSQL takes no writes: it is a standby, or set to read only",
        ),
        // The session was ended, by a restart or by somebody: a commit may have been under way.
        "57P01" | "57P02" | "57P05" | "25P03" => lost(),
        "28000" | "28P01" => Failure::fatal(
            "bad_credentials",
            "PostgreSQL refuses the administrator's name or password: correct `url`",
        ),
        "3D000" | "57P04" => Failure::fatal("no_database", "there is no such database on the server"),
        "42501" => Failure::fatal("not_allowed", format!("PostgreSQL does not allow it: {text}")),
        "42939" => {
            Failure::invalid("bad_name", "the name is PostgreSQL's own: change `names` in the template")
        }
        "XX001" | "XX002" => {
            Failure::fatal("corrupt", "PostgreSQL finds its data damaged: restore it from a backup")
        }
        // Two sessions changed one row of the catalogue, or the server is at a loss.
        "XX000" => Failure::retryable("internal", "PostgreSQL could not do it for a reason of its own"),
        _ => by_class(code, text),
    }
}

/// By the first two characters.
fn by_class(code: &str, text: &str) -> Failure {
    match code.get(..2).unwrap_or_default() {
        "08" => lost(),
        // Conversions quote what they could not convert.
        "22" => Failure::invalid("bad_value", "a value does not fit its column"),
        "23" => Failure::invalid("constraint", text),
        "40" => Failure::retryable("rolled_back", "PostgreSQL gave the transaction up"),
        "53" => Failure::retryable("out_of_resources", "PostgreSQL is out of memory or another resource"),
        "58" => Failure::retryable("io_error", "PostgreSQL cannot read or write its files: check its disk"),
        // Errors in SQL, and objects that are missing or there already. The text quotes names only.
        "0A" | "25" | "2B" | "3F" | "42" | "55" | "P0" => Failure::fatal("database", text),
        _ => Failure::fatal("database", format!("PostgreSQL answered with SQLSTATE {code}")),
    }
}

fn lost() -> Failure {
    Failure::unknown("connection_lost", "the connection to PostgreSQL broke before it answered")
}

/// Whether a database of this name, or whatever was to be made, is there already.
pub fn is_duplicate(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    // Of two sessions that make the same at once, the second finds its row in the catalogue's index.
    code.is_some_and(|code| ["42P04", "42P06", "42710", "23505"].contains(&&*code))
}

#[cfg(test)]
mod tests {
    use tenantry_model::FailureClass::{self, Fatal, Invalid, Retryable, Unknown};

    use super::*;

    #[test]
    fn every_state_has_its_class() {
        let classes: [(&str, FailureClass, &str); 20] = [
            ("53300", Retryable, "too_many_connections"),
            ("53100", Retryable, "disk_full"),
            ("53200", Retryable, "out_of_resources"),
            ("57P01", Unknown, "connection_lost"),
            ("57P02", Unknown, "connection_lost"),
            ("57P03", Retryable, "restarting"),
            ("57014", Retryable, "timeout"),
            ("40P01", Retryable, "deadlock"),
            ("40001", Retryable, "serialization"),
            ("55P03", Retryable, "busy"),
            ("08006", Unknown, "connection_lost"),
            ("25006", Retryable, "read_only"),
            ("28P01", Fatal, "bad_credentials"),
            ("3D000", Fatal, "no_database"),
            ("42501", Fatal, "not_allowed"),
            ("42601", Fatal, "database"),
            ("23505", Invalid, "constraint"),
            ("22P02", Invalid, "bad_value"),
            ("XX000", Retryable, "internal"),
            ("XX001", Fatal, "corrupt"),
        ];
        for (code, class, word) in classes {
            let failure = by_code(code, "text");
            assert_eq!((failure.class, &*failure.code), (class, word), "{code}");
        }
    }

    #[test]
    fn conversions_do_not_quote_what_they_were_given() {
        let failure = by_code("22P02", "invalid input syntax for type integer: \"secret\"");
        assert!(!failure.message.contains("secret"), "{failure}");
    }

    #[test]
    fn who_cannot_connect_has_done_nothing() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(connecting(sqlx::Error::Io(refused)).class, Retryable);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(failure(sqlx::Error::Io(refused)).class, Unknown);
    }
}
