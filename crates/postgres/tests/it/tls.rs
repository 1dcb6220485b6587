//! TLS against a real server: what each `sslmode` accepts, and that a login is bound to the server's certificate.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};
use tempfile::TempDir;
use tenantry_postgres::{Kind, Server, Session};
use tenantry_testkit::own_postgres::OwnPostgres;

/// An authority, the PEM of its certificate, and a certificate and key that it made for a server.
struct Authority {
    root: String,
    certificate: String,
    key: String,
}

fn authority(names: &[&str]) -> Authority {
    signed_with(&PKCS_ECDSA_P256_SHA256, names)
}

fn signed_with(algorithm: &'static SignatureAlgorithm, names: &[&str]) -> Authority {
    let key = KeyPair::generate_for(algorithm).unwrap();
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

/// Whether the role `bound` gets in with this password and query.
async fn login(server: &OwnPostgres, password: &str, query: &str) -> Result<bool, String> {
    let url = server.url().replace("postgres@", &format!("bound:{password}@"));
    is_encrypted(&format!("{url}?{query}")).await
}

#[tokio::test]
async fn a_login_is_bound_to_the_certificate() {
    // The hash of the certificate is by the hash function of its signature.
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
        let own = signed_with(algorithm, &["127.0.0.1"]);
        let Some(server) = OwnPostgres::start_encrypted(&own.certificate, &own.key).await else { return };
        server.say("CREATE ROLE bound LOGIN PASSWORD 'right'").await;
        for query in ["sslmode=require", "sslmode=require&channel_binding=require"] {
            assert_eq!(login(&server, "right", query).await, Ok(true), "{algorithm:?} {query}");
        }
        assert!(login(&server, "right", "channel_binding=require&sslmode=disable").await.is_err());
        let refused = login(&server, "wrong-secret", "sslmode=require").await.unwrap_err();
        assert!(refused.contains("password") && !refused.contains("wrong-secret"), "{refused}");
        let without = server.url().replace("postgres@", "bound@") + "?sslmode=require";
        let refused = Session::open(&without.parse().unwrap()).await.err().unwrap();
        assert_eq!(refused.kind(), Kind::Credentials, "{refused:?}");
    }
}

#[tokio::test]
async fn a_certificate_whose_signature_names_no_hash_binds_nothing() {
    let own = signed_with(&PKCS_ED25519, &["127.0.0.1"]);
    let Some(server) = OwnPostgres::start_encrypted(&own.certificate, &own.key).await else { return };
    server.say("CREATE ROLE bound LOGIN PASSWORD 'right'").await;
    assert_eq!(login(&server, "right", "sslmode=require").await, Ok(true));
    login(&server, "right", "sslmode=require&channel_binding=require").await.unwrap_err();
}
