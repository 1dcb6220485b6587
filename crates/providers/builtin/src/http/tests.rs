//! Allowed URLs, message ids and the signing secret. Calls are tested in `tests/it/http.rs`.

use serde_json::json;
use tenantry_model::id::{OperationId, ResourceId};

use super::*;

fn http(change: impl FnOnce(&mut Config)) -> Http {
    let mut config = Config::new("/nowhere/secret");
    change(&mut config);
    Http::new(config).unwrap()
}

fn rejected(http: &Http, url: &str) -> bool {
    !http.check(&json!({ "url": url })).is_empty()
}

#[test]
fn rejects_urls_that_are_not_https_or_not_public() {
    let strict = http(|_| {});
    for good in ["https://example.com/hook", "https://8.8.8.8:8443/x", "https://[2606:4700::1111]/"] {
        assert!(!rejected(&strict, good), "{good}");
    }
    for bad in [
        "http://example.com/",
        "ftp://example.com/",
        "https://user:pass@example.com/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://",
        "file:///etc/passwd",
        "not a url",
    ] {
        assert!(rejected(&strict, bad), "{bad}");
    }
    let with_host = http(|config| config.allow_hosts.extend(["127.0.0.1".to_owned()]));
    assert!(!rejected(&with_host, "http://127.0.0.1:8080/"));
    assert!(rejected(&with_host, "http://127.0.0.2:8080/"));
    let with_private = http(|config| config.allow_private = true);
    assert!(!rejected(&with_private, "http://10.0.0.1/"));
}

#[test]
fn repeated_calls_share_an_id_and_observations_do_not() {
    let mut spec: Spec = serde_json::from_value(json!({
        "resource": ResourceId::new(), "operation": OperationId::new(), "generation": 1, "name": "n", "claim": "c",
        "settings": {}, "inputs": {}, "note": null,
        "tenant": {
            "id": tenantry_model::TenantId::new(), "slug": "s", "name": "n", "plan": "p", "region": "r", "locale": "en",
            "admin": { "email": "e", "first_name": null, "last_name": null, "role": "owner" },
        },
    }))
    .unwrap();
    let ensure = message_id(Asked::Ensure, &spec);
    assert_eq!(ensure, message_id(Asked::Ensure, &spec));
    assert_ne!(ensure, message_id(Asked::Remove, &spec));
    assert_ne!(message_id(Asked::Observe, &spec), message_id(Asked::Observe, &spec));
    spec.operation = OperationId::new();
    assert_ne!(ensure, message_id(Asked::Ensure, &spec), "another operation has another id");
}

#[tokio::test]
async fn rejects_malformed_signing_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    let provider = http(|config| config.secret_file = file.clone());
    assert!(provider.probe().await.unwrap_err().may_retry(), "no file yet");
    for bad in [
        "",
        "whsec_",
        "whsec_short",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
    ] {
        std::fs::write(&file, bad).unwrap();
        let failure = provider.probe().await.unwrap_err();
        assert_eq!(failure.code, "no_secret", "{bad}");
        assert!(
            bad.is_empty() || !failure.message.contains(&bad[6.min(bad.len())..]) || bad.len() <= 6,
            "{failure}"
        );
    }
    std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    provider.probe().await.unwrap();
}
