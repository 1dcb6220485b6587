//! Authorities, files and renewal. The provider contract is tested in `tests/it`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const DAY: i64 = 86_400_000_000;

fn after(days: i64) -> Timestamp {
    Timestamp::from_micros(NOW.micros() + days * DAY)
}

fn cabinet(folder: &Path) -> Cabinet {
    with(&Config::new(folder)).unwrap()
}

fn with(config: &Config) -> Result<Cabinet, Failure> {
    Cabinet::open(&config.folder, Authority::open(config)?, config.renew_days)
}

fn wanted(name: &str, claim: &str) -> Wanted {
    let names = vec![format!("{name}.example.com")];
    Wanted { name: name.to_owned(), claim: claim.to_owned(), names, days: 90 }
}

fn is_healthy(cabinet: &Cabinet, wanted: &Wanted, now: Timestamp) -> bool {
    match cabinet.observe(wanted, now).unwrap() {
        Seen::Present { healthy, .. } => healthy,
        other => panic!("{other:?}"),
    }
}

fn mode(path: PathBuf) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn accepts_host_names_and_addresses_as_certificate_names() {
    let checked = |given: &[&str]| names(&given.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(
        checked(&["A.Example.com.", "a.example.com", "*.B.example", "::1", "192.0.2.1", "localhost"])
            .unwrap(),
        ["a.example.com", "*.b.example", "::1", "192.0.2.1", "localhost"]
    );
    let long = vec!["a".repeat(62); 4].join(".");
    assert!(checked(&[&long]).is_ok());
    for bad in [
        "",
        "*",
        "*.",
        "*.com",
        "a.*.com",
        "*.*.com",
        "a b",
        "http://a.example",
        "a@b.example",
        "\u{0}",
        "-a.example",
        &"a".repeat(64),
        &format!("{long}.aa"),
        &format!("*.{long}aa"),
        &"ü".repeat(1_000_000),
    ] {
        let why = checked(&[bad]).unwrap_err();
        assert!(why.chars().count() < 400, "{why}");
    }
    assert!(checked(&[]).is_err());
    let many: Vec<String> = (0..101).map(|i| format!("a{i}.example")).collect();
    assert!(names(&many).is_err() && names(&many[..100]).is_ok());
}

#[test]
fn rejects_folder_names_that_lead_elsewhere() {
    for good in ["acme", "tenant_01h", "a.b-c", &"a".repeat(128)] {
        assert_eq!(folder(good).unwrap(), good);
    }
    for bad in ["", ".", "..", "../x", "a/b", ".draft", "a\0", "ä", &"a".repeat(129)] {
        assert_eq!(folder(bad).unwrap_err().code, "bad_name", "{bad}");
    }
}

#[test]
fn rejects_invalid_settings() {
    let fault = |settings: Value| {
        let (kind, settings): (CertificateSettings, Settings) = settings::check_both(&settings).unwrap();
        check(&kind, &settings).err().map(|(path, _)| path)
    };
    assert_eq!(fault(json!({})), None);
    assert_eq!(fault(json!({ "names": ["a.example"], "lifetime_days": 825 })), None);
    assert_eq!(fault(json!({ "names": [] })), Some("names"));
    assert_eq!(fault(json!({ "names": ["a.example"], "from": "dns" })), Some("from"));
    assert_eq!(fault(json!({ "lifetime_days": 0 })), Some("lifetime_days"));
    assert_eq!(fault(json!({ "lifetime_days": 826 })), Some("lifetime_days"));
}

#[test]
fn keys_are_readable_by_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("certificates");
    let cabinet = cabinet(&root);
    cabinet.make(&wanted("acme", "us"), NOW).unwrap();
    for folder in ["", "authority", "certificates", "certificates/acme"] {
        assert_eq!(mode(root.join(folder)), 0o700, "{folder}");
    }
    for key in ["authority/key.pem", "certificates/acme/key.pem"] {
        assert_eq!(mode(root.join(key)), 0o600, "{key}");
    }
}

#[test]
fn renews_in_the_last_third_of_the_lifetime() {
    let dir = tempfile::tempdir().unwrap();
    let first = cabinet(dir.path());
    let wanted = wanted("acme", "us");
    let made = first.make(&wanted, NOW).unwrap();
    assert_eq!((made.serial.len(), when(made.not_after)), (32, after(90)));
    let key = fs::read(first.folder_of("acme").join(client::KEY)).unwrap();
    assert_eq!(first.make(&wanted, after(59)).unwrap(), made);
    assert!(is_healthy(&first, &wanted, after(59)));
    for late in [61, 89, 90, 1000] {
        assert!(!is_healthy(&first, &wanted, after(late)), "{late}");
    }
    let renewed = first.make(&wanted, after(61)).unwrap();
    assert_ne!(renewed.serial, made.serial);
    assert_eq!(when(renewed.not_after), after(151));
    assert!(is_healthy(&first, &wanted, after(61)));
    assert_eq!(fs::read(first.folder_of("acme").join(client::KEY)).unwrap(), key);

    let soon = with(&Config { renew_days: Some(5), ..Config::new(dir.path()) }).unwrap();
    assert!(is_healthy(&soon, &wanted, after(145)));
    assert!(!is_healthy(&soon, &wanted, after(146)));
}

#[test]
fn reissues_after_a_change_of_names_or_authority() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = cabinet(dir.path());
    let mut wanted = wanted("acme", "us");
    let made = first.make(&wanted, NOW).unwrap();
    wanted.names.push("shop.example.org".to_owned());
    assert!(!is_healthy(&first, &wanted, NOW));
    let named = first.make(&wanted, NOW).unwrap();
    assert!(named.serial != made.serial && named.names == wanted.names);

    cabinet(other.path());
    let foreign = other.path().join("authority");
    let second = with(&Config {
        ca_certificate: Some(foreign.join("cert.pem")),
        ca_key: Some(foreign.join("key.pem")),
        ..Config::new(dir.path())
    })
    .unwrap();
    assert!(!is_healthy(&second, &wanted, NOW));
    second.make(&wanted, NOW).unwrap();
    assert!(is_healthy(&second, &wanted, NOW));
    let chain = fs::read(second.folder_of("acme").join(client::CHAIN)).unwrap();
    assert_eq!(chain, fs::read(foreign.join("cert.pem")).unwrap());
}

#[test]
fn rejects_unusable_authorities() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = cabinet(dir.path());
    cabinet(other.path());
    first.make(&wanted("acme", "us"), NOW).unwrap();
    let (authority, foreign) = (dir.path().join("authority"), other.path().join("authority"));
    let leaf = dir.path().join("certificates/acme");
    let garbage = dir.path().join("garbage");
    fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let code = |certificate: Option<PathBuf>, key: Option<PathBuf>| {
        let config = Config { ca_certificate: certificate, ca_key: key, ..Config::new(dir.path()) };
        with(&config).err().map(|failure| failure.code)
    };
    let (certificate, key) = (authority.join("cert.pem"), authority.join("key.pem"));
    assert_eq!(code(Some(certificate.clone()), Some(key.clone())), None);
    for (certificate, key) in [
        (Some(certificate.clone()), None),
        (None, Some(key.clone())),
        (Some(certificate.clone()), Some(foreign.join("key.pem"))),
        (Some(leaf.join("cert.pem")), Some(leaf.join("key.pem"))),
        (Some(key.clone()), Some(key.clone())),
        (Some(certificate.clone()), Some(certificate.clone())),
        (Some(garbage.clone()), Some(key.clone())),
        (Some(dir.path().join("none")), Some(key)),
    ] {
        assert_eq!(code(certificate, key).as_deref(), Some("bad_config"));
    }
    fs::remove_file(certificate).unwrap();
    assert_eq!(
        code(None, None).as_deref(),
        Some("bad_config"),
        "an authority with a missing file is not generated again"
    );
    for config in [
        Config { lifetime_days: 0, ..Config::new(other.path()) },
        Config { renew_days: Some(90), ..Config::new(other.path()) },
    ] {
        assert_eq!(CertificateLocalCa::new(config).err().unwrap().code, "bad_config");
    }
}

#[test]
fn certificates_end_with_their_authority() {
    let dir = tempfile::tempdir().unwrap();
    let cabinet = cabinet(dir.path());
    let root = Facts::read(&fs::read_to_string(dir.path().join("authority/cert.pem")).unwrap()).unwrap();
    let end = when(root.not_after);
    let late = Timestamp::from_micros(end.micros() - 10 * DAY);
    assert_eq!(cabinet.make(&wanted("acme", "us"), late).unwrap().not_after, root.not_after);
    for gone in [end, after(100_000)] {
        let failure = cabinet.make(&wanted("late", "us"), gone).unwrap_err();
        assert_eq!((failure.code.as_str(), failure.may_retry()), ("ca_expired", false));
        assert!(cabinet.probe(gone).is_err());
    }
    let failure = cabinet.make(&wanted("never", "us"), Timestamp::from_micros(i64::MAX)).unwrap_err();
    assert_eq!(failure.code, "bad_clock");
}

#[test]
fn repairs_damaged_files_and_leaves_foreign_ones() {
    let dir = tempfile::tempdir().unwrap();
    let first = cabinet(dir.path());
    let wanted = wanted("acme", "us");
    // An interrupted removal leaves an empty folder.
    fs::create_dir(first.folder_of("acme")).unwrap();
    assert_eq!(first.observe(&wanted, NOW).unwrap(), Seen::Absent);
    first.make(&wanted, NOW).unwrap();
    for (file, text) in [
        (client::KEY, Some("")),
        (client::KEY, None),
        (client::CERTIFICATE, Some("-----BEGIN CERTIFICATE-----\n")),
        (client::CERTIFICATE, None),
        (client::CHAIN, Some("x")),
        (client::CHAIN, None),
    ] {
        let folder = first.folder_of("acme").join(file);
        match text {
            Some(text) => fs::write(&folder, text).unwrap(),
            None => fs::remove_file(&folder).unwrap(),
        }
        fs::write(first.folder_of("acme").join(".x.draft"), "half of a key").unwrap();
        assert!(!is_healthy(&first, &wanted, NOW), "{file} {text:?}");
        first.make(&wanted, NOW).unwrap();
        assert!(is_healthy(&first, &wanted, NOW), "{file} {text:?}");
    }
    assert_eq!(fs::read_dir(first.folder_of("acme")).unwrap().count(), 4);

    fs::create_dir(first.folder_of(".made.draft")).unwrap();
    let again = cabinet(dir.path());
    assert!(is_healthy(&again, &wanted, NOW), "a restart changes nothing");
    assert!(!again.folder_of(".made.draft").exists());

    fs::create_dir(again.folder_of("bare")).unwrap();
    fs::write(again.folder_of("bare").join("cert.pem"), "foreign").unwrap();
    fs::write(again.folder_of("file"), "foreign").unwrap();
    for name in ["bare", "file"] {
        let foreign = self::wanted(name, "us");
        assert_eq!(again.make(&foreign, NOW).unwrap_err().code, "name_taken", "{name}");
        assert_eq!(again.observe(&foreign, NOW).unwrap(), Seen::Foreign);
        assert!(again.remove(&foreign).unwrap().is_none());
        assert!(again.folder_of(name).exists());
    }
}

#[test]
fn an_unusable_folder_is_a_retryable_failure() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("blocked");
    fs::write(&blocked, "").unwrap();
    let failure = with(&Config::new(&blocked)).err().unwrap();
    assert!(failure.may_retry(), "{failure}");
    fs::remove_file(&blocked).unwrap();
    let cabinet = cabinet(&blocked);
    fs::remove_dir_all(&blocked).unwrap();
    fs::write(&blocked, "").unwrap();
    for failure in [
        cabinet.make(&wanted("acme", "us"), NOW).unwrap_err(),
        cabinet.observe(&wanted("acme", "us"), NOW).unwrap_err(),
        cabinet.probe(NOW).unwrap_err(),
    ] {
        assert_eq!((failure.code.as_str(), failure.may_retry()), ("certificate_folder", true));
    }
}

#[test]
fn concurrent_claims_of_one_name_have_one_winner() {
    let dir = tempfile::tempdir().unwrap();
    let cabinet = cabinet(dir.path());
    let cabinet = &cabinet;
    let made: Vec<Result<Facts, Failure>> = std::thread::scope(|scope| {
        let claims =
            ["a", "b", "c", "d"].map(|claim| scope.spawn(move || cabinet.make(&wanted("acme", claim), NOW)));
        claims.into_iter().map(|claim| claim.join().unwrap()).collect()
    });
    let lost = made.iter().filter_map(|done| done.as_ref().err()).map(|failure| failure.code.as_str());
    assert_eq!(lost.collect::<Vec<_>>(), ["name_taken"; 3]);
    let serials: std::collections::BTreeSet<String> =
        (0..20).map(|i| cabinet.make(&wanted(&format!("t{i}"), "us"), NOW).unwrap().serial).collect();
    assert_eq!(serials.len(), 20);
}
