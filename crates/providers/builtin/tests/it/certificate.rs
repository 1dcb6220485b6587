//! Certificates as others see them: `openssl` verifies one, and a TLS client shakes hands with a server that has one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_builtin::certificate_local_ca::{CertificateLocalCa, Config};
use tenantry_provider::{Observed, Provider, Spec};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::world::{World, spec};

async fn opened(dir: &TempDir) -> CertificateLocalCa {
    CertificateLocalCa::started(Config::new(dir.path())).await.unwrap()
}

fn root(dir: &TempDir) -> PathBuf {
    dir.path().join("authority/cert.pem")
}

async fn made(ca: &CertificateLocalCa, settings: Value) -> (Spec, PathBuf) {
    let spec = spec(settings);
    ca.ensure(&World::default().context(), &spec).await.unwrap();
    let folder = ca.folder_of(&spec.name).unwrap();
    (spec, folder)
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect()
}

/// A handshake under this name with a client that trusts the root.
async fn shake_hands(root: &Path, folder: &Path, name: &str) -> Result<(), String> {
    let chain = [certificates(&folder.join("cert.pem")), certificates(&folder.join("chain.pem"))].concat();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(root));
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(TlsAcceptor::from(Arc::new(server)).accept(stream).await);
    });
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let shaken = TlsConnector::from(Arc::new(client)).connect(name, stream).await;
    served.await.unwrap();
    shaken.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_handshake_succeeds_under_its_names_and_no_other() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ca = opened(&dir).await;
    let (_, folder) =
        made(&ca, json!({ "names": ["acme.example.com", "*.acme.example.com", "127.0.0.1"] })).await;
    for name in ["acme.example.com", "www.acme.example.com", "127.0.0.1"] {
        shake_hands(&root(&dir), &folder, name).await.unwrap();
    }
    for name in ["other.example.com", "a.b.acme.example.com", "127.0.0.2"] {
        assert!(shake_hands(&root(&dir), &folder, name).await.is_err(), "{name}");
    }
    opened(&other).await;
    assert!(shake_hands(&root(&other), &folder, "acme.example.com").await.is_err());
    let (unnamed, folder) = made(&ca, json!({})).await;
    shake_hands(&root(&dir), &folder, &unnamed.name).await.unwrap();
}

/// What `openssl` prints; none where there is none.
fn openssl(words: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("openssl").args(words).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8(text).unwrap()))
}

#[tokio::test]
async fn openssl_verifies_it() {
    let dir = tempfile::tempdir().unwrap();
    let ca = opened(&dir).await;
    let (_, folder) = made(&ca, json!({ "names": ["acme.example.com", "2001:db8::1"] })).await;
    let (root, file) = (root(&dir), folder.join("cert.pem"));
    let [root, file] = [&root, &file].map(|path| path.to_str().unwrap());
    let strict = ["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "acme.example.com"];
    let Some((verified, said)) = openssl(&[&strict[..], &["-CAfile", root, file]].concat()) else {
        tenantry_testkit::skip::skip(
            "certificate: openssl",
            "openssl is not installed",
            "apt-get install openssl",
        );
        return;
    };
    assert!(verified, "{said}");
    let (_, text) = openssl(&["x509", "-noout", "-text", "-in", file]).unwrap();
    for word in [
        "CA:FALSE",
        "Digital Signature",
        "TLS Web Server Authentication",
        "DNS:acme.example.com, IP Address:2001:DB8:0:0:0:0:0:1",
        "Authority Key Identifier",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let (_, text) = openssl(&["x509", "-noout", "-text", "-in", root]).unwrap();
    for word in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "Tenantry local CA"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[tokio::test]
async fn names_come_from_the_step_before() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, world) = (opened(&dir).await, World::default());
    let dns = json!({ "host": "acme.example.com", "names": ["acme.example.com", "shop.example.org"] });
    for (step, outputs, settings, names) in [
        ("dns", dns.clone(), json!({}), json!(["acme.example.com", "shop.example.org"])),
        ("names", dns.clone(), json!({ "from": "names" }), json!(["acme.example.com", "shop.example.org"])),
        ("dns", json!({ "host": "acme.example.com" }), json!({}), json!(["acme.example.com"])),
        ("dns", dns.clone(), json!({ "names": ["Müller.example"] }), json!(["xn--mller-kva.example"])),
    ] {
        let mut spec = spec(settings);
        spec.inputs.insert(step.to_owned(), outputs);
        assert_eq!(ca.ensure(&world.context(), &spec).await.unwrap().outputs["names"], names);
    }
    for (step, outputs, settings) in [
        ("dns", dns, json!({ "from": "other" })),
        ("dns", json!({ "file": "x" }), json!({})),
        ("dns", json!({ "names": [1] }), json!({})),
        ("dns", json!({ "names": [] }), json!({})),
        ("dns", json!({ "host": "not a host" }), json!({})),
    ] {
        let mut spec = spec(settings);
        spec.inputs.insert(step.to_owned(), outputs.clone());
        let failure = ca.ensure(&world.context(), &spec).await.unwrap_err();
        assert_eq!(failure.code, "bad_settings", "{outputs}");
    }
}

#[tokio::test]
async fn a_removed_one_leaves_its_number_and_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, world) = (opened(&dir).await, World::default());
    let spec = spec(json!({}));
    let outputs = ca.ensure(&world.context(), &spec).await.unwrap().outputs;
    let keys = || {
        let mut found = Vec::new();
        let mut folders = vec![dir.path().join("certificates")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.path().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
            }
        }
        found
    };
    assert_eq!(keys().len(), 4);
    let receipt = ca.remove(&world.context(), &spec).await.unwrap().receipt;
    assert_eq!(receipt, json!({ "certificates": 1, "revoked_serial": outputs["serial"] }));
    assert_eq!(keys(), Vec::<PathBuf>::new());
    assert_eq!(ca.observe(&world.context(), &spec).await.unwrap(), Observed::Absent);
}
