//! TLS against a real server: what each `sslmode` accepts, and that a login is bound to the server's certificate.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tenantry_postgres::{Server, Session};
use tenantry_testkit::own_postgres::OwnPostgres;

/// An authority, the PEM of its certificate, and a certificate and key that it made for a server.
struct Authority {
    root: String,
    certificate: String,
    key: String,
}

fn authority(names: &[&str]) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap().pem();
    Authority { root, certificate, key: key.serialize_pem() }
}

fn file(folder: &TempDir, name: &str, content: &str) -> String {
    let file = folder.path().join(name);
    std::fs::write(&file, content).unwrap();
    Path::new(&file).display().to_string()
}

/// An error with its reasons.
fn text(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Whether a connection to this URL is encrypted; an error if there is none.
async fn is_encrypted(url: &str) -> Result<bool, String> {
    let server: Server = url.parse()?;
    let mut session = Session::open(&server).await.map_err(|error| text(&error))?;
    let found = session.one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await;
    found.map_err(|error| text(&error))
}

#[tokio::test]
async fn each_mode_checks_what_it_says() {
    let (own, other) = (authority(&["127.0.0.1"]), authority(&[]));
    let folder = TempDir::new().unwrap();
    let (root, wrong) = (file(&folder, "root.pem", &own.root), file(&folder, "wrong.pem", &other.root));
    let Some(server) = OwnPostgres::start_encrypted(&own.certificate, &own.key).await else { return };
    let named = |host: &str| server.url().replace("127.0.0.1", host);
    let ask = async |url: String, query: String| is_encrypted(&format!("{url}?{query}")).await;
    assert_eq!(ask(server.url(), "sslmode=disable".to_owned()).await, Ok(false));
    for query in ["", "sslmode=prefer", "sslmode=require"] {
        assert_eq!(ask(server.url(), query.to_owned()).await, Ok(true), "{query}");
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        assert_eq!(ask(server.url(), format!("sslmode={mode}&sslrootcert={root}")).await, Ok(true), "{mode}");
        let refused = ask(server.url(), format!("sslmode={mode}&sslrootcert={wrong}")).await.unwrap_err();
        assert!(refused.contains("certificate"), "{mode}: {refused}");
    }
    // The certificate is for another name.
    let query = |mode| format!("sslmode={mode}&sslrootcert={root}&hostaddr=127.0.0.1");
    assert_eq!(ask(named("db.example"), query("verify-ca")).await, Ok(true));
    ask(named("db.example"), query("verify-full")).await.unwrap_err();
    // No file of authorities: only those that browsers trust.
    ask(server.url(), "sslmode=verify-ca".to_owned()).await.unwrap_err();
    let missing = ask(server.url(), "sslmode=verify-ca&sslrootcert=/no/such/file".to_owned()).await;
    assert!(missing.is_err());
}

#[tokio::test]
async fn a_login_is_bound_to_the_certificate() {
    let own = authority(&["127.0.0.1"]);
    let Some(server) = OwnPostgres::start_encrypted(&own.certificate, &own.key).await else { return };
    server.say("CREATE ROLE bound LOGIN PASSWORD 'right'").await;
    let url = |password: &str| server.url().replace("postgres@", &format!("bound:{password}@"));
    for query in ["sslmode=require", "sslmode=require&channel_binding=require"] {
        assert_eq!(is_encrypted(&format!("{}?{query}", url("right"))).await, Ok(true), "{query}");
    }
    assert!(
        is_encrypted(&format!("{}?channel_binding=require&sslmode=disable", url("right"))).await.is_err()
    );
    let refused = is_encrypted(&format!("{}?sslmode=require", url("wrong-secret"))).await.unwrap_err();
    assert!(refused.contains("password") && !refused.contains("wrong-secret"), "{refused}");
}
