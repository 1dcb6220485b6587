//! Messages and files. The provider contract is tested in `tests/it`.

use std::collections::BTreeMap;
use std::path::Path;

use tenantry_model::Timestamp;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn tenant(name: &str, locale: &str) -> Tenant {
    Tenant {
        name: name.to_owned(),
        locale: locale.to_owned(),
        admin: Person {
            email: "ada@example.com".to_owned(),
            first_name: Some("Ada".to_owned()),
            last_name: Some("Müller\r\nBcc: x@example.com".to_owned()),
            role: "owner".to_owned(),
        },
        ..sample_tenant()
    }
}

fn composed(tenant: &Tenant, link: Option<&str>) -> String {
    let letter = Letter::load(&Files::mail(None), "welcome").unwrap();
    let filled = letter
        .fill(&tenant.locale, &Facts { tenant, link, product: "Demo", values: &BTreeMap::new() })
        .unwrap();
    let from: Mailbox = "Us <us@example.com>".parse().unwrap();
    String::from_utf8(message::compose(&from, tenant, filled, "mark", "id", NOW).unwrap()).unwrap()
}

fn header(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().0
}

#[test]
fn values_cannot_inject_headers() {
    let evil = "A\r\nBcc: y@example.com\r\n\r\nnew body\u{0}\u{1b}[31m";
    let message = composed(&tenant(evil, "en"), None);
    for line in header(&message).split("\r\n") {
        let name = line.split(':').next().unwrap();
        let known = [
            "From",
            "To",
            "Date",
            "Message-ID",
            "X-Tenantry-Owner",
            "Auto-Submitted",
            "Content-Type",
            "Subject",
            "MIME-Version",
            "Content-Transfer-Encoding",
        ];
        assert!(line.starts_with(' ') || known.contains(&name), "{line:?}");
        assert!(line.is_ascii() && line.len() <= 998, "{line:?}");
    }
}

#[test]
fn every_language_has_its_own_text_with_the_link() {
    let letter = Letter::load(&Files::mail(None), "welcome").unwrap();
    assert_eq!(letter.languages().collect::<Vec<_>>(), ["de", "en", "hr", "it"]);
    let mut subjects = std::collections::BTreeSet::new();
    for locale in ["en", "de-AT", "it", "hr"] {
        let tenant = tenant("Acme <& Co>", locale);
        let none = BTreeMap::new();
        let facts = |link| Facts { tenant: &tenant, link, product: "Demo", values: &none };
        let with = letter.fill(locale, &facts(Some("https://x/#t0k"))).unwrap();
        let without = letter.fill(locale, &facts(None)).unwrap();
        assert!(
            with.text.contains("https://x/#t0k")
                && with.text.contains("Acme <& Co>")
                && with.text.contains("Ada"),
            "{}",
            with.text
        );
        assert!(!without.text.contains("http"), "{}", without.text);
        subjects.insert(with.subject);
    }
    assert_eq!(subjects.len(), 4, "four languages, four subjects: {subjects:?}");
}

#[test]
fn an_invalid_address_is_not_quoted_in_the_failure() {
    let mut tenant = tenant("x", "en");
    tenant.admin.email = "not an address".to_owned();
    let from: Mailbox = "us@example.com".parse().unwrap();
    let filled = message::Filled { subject: String::new(), text: String::new(), locale: String::new() };
    let failure = message::compose(&from, &tenant, filled, "m", "i", NOW).unwrap_err();
    assert_eq!(failure.code, "bad_address");
    assert!(!failure.message.contains("not an address"));
}

#[test]
fn a_message_is_written_once_and_drafts_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let place = ResourceFolder::new(&dir.path().join("out"), "a");
    std::fs::create_dir(dir.path().join("out")).unwrap();
    std::fs::write(dir.path().join("out/.a.draft"), "half of a mess").unwrap();
    assert!(place.put(b"X-Tenantry-Owner: m\r\n\r\none").unwrap());
    assert!(!place.put(b"two").unwrap(), "an existing message is not overwritten");
    assert_eq!(place.read().unwrap(), b"X-Tenantry-Owner: m\r\n\r\none");
    let names: Vec<_> =
        std::fs::read_dir(dir.path().join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["a.eml"]);
}

#[test]
fn the_owner_tag_counts_in_headers_only() {
    let dir = tempfile::tempdir().unwrap();
    let place = ResourceFolder::new(dir.path(), "a");
    assert_eq!(place.look("m").unwrap(), Ownership::Absent);
    for (text, found) in [
        ("From: x\r\nX-Tenantry-Owner: m\r\n\r\ntext", Ownership::Own(())),
        ("From: x\r\n\r\nX-Tenantry-Owner: m\r\n", Ownership::Foreign),
        ("X-Tenantry-Owner: mm\r\n\r\n", Ownership::Foreign),
        ("", Ownership::Foreign),
    ] {
        std::fs::write(place.file(), text).unwrap();
        assert_eq!(place.look("m").unwrap(), found, "{text:?}");
    }
}

#[tokio::test]
async fn an_unwritable_folder_is_a_retryable_failure() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let outbox = MailOutbox::new(Config::new(&blocked)).unwrap();
    let failure = outbox.probe().await.unwrap_err();
    assert!(failure.may_retry(), "{failure}");
    std::fs::remove_file(&blocked).unwrap();
    outbox.probe().await.unwrap();
    assert_eq!(std::fs::read_dir(&blocked).unwrap().count(), 0);
}

#[test]
fn rejects_invalid_configuration_and_templates() {
    let config = |change: fn(&mut Config)| {
        let mut config = Config::new(Path::new("/nowhere"));
        change(&mut config);
        MailOutbox::new(config).err().map(|failure| failure.code)
    };
    assert_eq!(config(|_| {}), None);
    assert_eq!(config(|c| c.from = "no address".to_owned()).as_deref(), Some("bad_config"));
    assert_eq!(config(|c| c.link = "{{ password }}".to_owned()).as_deref(), Some("bad_config"));

    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("en")).unwrap();
    for (text, word) in [
        ("Subject: {{ x }}\n", "undefined"),
        ("no subject", "first line"),
        ("Subject: a\n\n{% if %}", "syntax"),
    ] {
        std::fs::write(dir.path().join("en/note.txt"), text).unwrap();
        let outbox =
            MailOutbox::new(Config { templates: Some(dir.path().to_owned()), ..Config::new("/nowhere") })
                .unwrap();
        let faults = outbox.check(&json!({ "template": "note" }));
        assert!(faults.first().is_some_and(|fault| fault.message.contains(word)), "{text}: {faults:?}");
        assert_eq!(outbox.check(&json!({ "template": "../note" })).len(), 1);
        assert_eq!(outbox.check(&json!({ "template": "other" })).len(), 1);
    }
}
