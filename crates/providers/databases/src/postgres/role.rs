//! SQL for tenants' login roles: created with their owner tag in one transaction, never with a password in
//! clear text, which the server could log. Privileges on tables are in `rights.rs`.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use aws_lc_rs::pbkdf2::{PBKDF2_HMAC_SHA256, derive};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::failure::failure;
use super::name::Name;
use crate::tables::literal;

/// Rounds of PBKDF2, PostgreSQL's default. The passwords are random, so more rounds would add nothing.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
/// Time for a terminated session to end, in milliseconds.
const TERMINATION_TIMEOUT_MS: i32 = 5_000;
/// How often a role's sessions are looked up and terminated.
const TERMINATIONS: usize = 5;

/// The SCRAM verifier that PostgreSQL stores for a password (RFC 5803). It does not allow a login.
pub fn verifier(password: &str, salt: &[u8]) -> String {
    let mut salted = [0; 32];
    derive(PBKDF2_HMAC_SHA256, ROUNDS, salt, password.as_bytes(), &mut salted);
    let salted = Key::new(HMAC_SHA256, &salted);
    let stored = digest(&SHA256, hmac::sign(&salted, b"Client Key").as_ref());
    let server = hmac::sign(&salted, b"Server Key");
    let [salt, stored, server] = [salt, stored.as_ref(), server.as_ref()].map(|bytes| STANDARD.encode(bytes));
    format!("SCRAM-SHA-256${ROUNDS}:{salt}${stored}:{server}")
}

/// How the administrator and the logins of a server become members of roles.
#[derive(Clone, Copy, Debug)]
pub struct Memberships {
    /// Whether the administrator is a superuser, who may act as any role without being its member.
    pub superuser: bool,
    /// Whether a membership has options of its own: PostgreSQL 16 and later.
    pub options: bool,
}

impl Memberships {
    /// The statement that makes `member` a member with the role's privileges, which may act as the role. An
    /// existing membership keeps the options that a GRANT does not name.
    pub fn grant(self, role: &Name, member: &impl fmt::Display) -> String {
        let options = if self.options { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        format!("GRANT {role} TO {member}{options};")
    }

    /// The statement that lets the administrator act as this role; empty for a superuser.
    pub fn join(self, role: &Name) -> String {
        if self.superuser { String::new() } else { self.grant(role, &"CURRENT_USER") }
    }
}

fn password_clause(password: &str) -> String {
    format!("PASSWORD {}", literal(&verifier(password, &rand::random::<[u8; 16]>())))
}

fn login(password: &str, limit: u16) -> String {
    format!("LOGIN CONNECTION LIMIT {limit} {}", password_clause(password))
}

/// The statements that create a role with its owner tag. Without a password it cannot log in.
pub fn create(
    name: &Name,
    tag: &str,
    password: Option<&str>,
    limit: u16,
    memberships: Memberships,
) -> String {
    let login = password.map_or("NOLOGIN".to_owned(), |password| login(password, limit));
    // The data endpoint acts as the tenant's role.
    let join = memberships.join(name);
    format!("CREATE ROLE {name} {login}; COMMENT ON ROLE {name} IS {};{join}", literal(tag))
}

/// The statements that lock a warm role into a tenant's: with this password, or with the one that it has.
pub fn hand_over(from: &Name, to: &Name, tag: &str, password: Option<&str>, limit: u16) -> String {
    let tag = literal(tag);
    let login = password.map_or("LOGIN".to_owned(), |password| login(password, limit));
    format!("ALTER ROLE {from} RENAME TO {to}; COMMENT ON ROLE {to} IS {tag}; ALTER ROLE {to} {login};")
}

/// The statement that sets a password without allowing logins.
pub fn prepare(name: &Name, password: &str, limit: u16) -> String {
    format!("ALTER ROLE {name} CONNECTION LIMIT {limit} {};", password_clause(password))
}

/// The statement that sets a new password and allows logins.
pub fn renew(name: &Name, password: &str) -> String {
    format!("ALTER ROLE {name} LOGIN {};", password_clause(password))
}

/// The statement that removes the password and forbids logins.
pub fn revoke(name: &Name) -> String {
    format!("ALTER ROLE {name} NOLOGIN PASSWORD NULL;")
}

/// The statement that allows or forbids logins.
pub fn set_login(name: &Name, allowed: bool) -> String {
    format!("ALTER ROLE {name} {};", if allowed { "LOGIN" } else { "NOLOGIN" })
}

/// Terminates the role's sessions. The caller has checked the owner tag.
pub async fn end_sessions(connection: &mut Session, name: &Name) -> Result<(), Failure> {
    for _ in 0..TERMINATIONS {
        let ended = connection
            .execute(
                "SELECT pg_terminate_backend(pid, $2) FROM pg_stat_activity WHERE usename = $1 AND pid <> pg_backend_pid()",
                &[&name.as_str(), &i64::from(TERMINATION_TIMEOUT_MS)],
            )
            .await
            .map_err(failure)?;
        // A session that was logging in may be listed only now.
        if ended == 0 {
            return Ok(());
        }
    }
    Err(Failure::retryable("busy", format!("sessions of the login {name} do not end; try again")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677's example: the client's proof and the server's signature match the stored verifier.
    #[test]
    fn verifier_matches_the_example_of_rfc_7677() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let text = verifier("pencil", &salt);
        let (_, keys) = text.rsplit_once('$').unwrap();
        let (stored, server) = keys.split_once(':').unwrap();
        let [stored, server] = [stored, server].map(|key| STANDARD.decode(key).unwrap());
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let sign = |key: &[u8]| hmac::sign(&Key::new(HMAC_SHA256, key), message.as_bytes());
        assert_eq!(STANDARD.encode(sign(&server)), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let signature = sign(&stored);
        let client: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(digest(&SHA256, &client).as_ref(), stored);
        assert!(text.starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"), "{text}");
    }
}
