//! Signed calls keep the contract, and every way in which a call can go wrong has its meaning.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_builtin::http::{Config, Http};
use tenantry_model::{Failure, FailureClass};
use tenantry_provider::{Provider, Spec};

use crate::contract::{Environment, violations};
use crate::service::{SECRET, Service, Thing, Trick};
use crate::world::{World, spec};

struct Calls {
    dir: TempDir,
    service: Service,
    http: Http,
    world: World,
}

impl Calls {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), SECRET).unwrap();
        let mut config = Config::new(dir.path().join("secret"));
        config.allow_private = true;
        change(&mut config);
        Self {
            dir,
            service: Service::start().await,
            http: Http::new(config).unwrap(),
            world: World::default(),
        }
    }

    async fn ensure(&self, spec: &Spec) -> Result<Value, Failure> {
        self.http.ensure(&self.world.context(), spec).await.map(|made| made.outputs)
    }
}

#[async_trait]
impl Environment for Calls {
    fn provider(&self) -> &dyn Provider {
        &self.http
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({ "url": self.service.url() })
    }
    async fn count(&self, spec: &Spec) -> usize {
        self.service.state.lock().things.keys().filter(|name| **name == spec.name).count()
    }
    async fn snapshot(&self) -> String {
        format!("{:?}", self.service.state.lock().things)
    }
    async fn plant_foreign(&self, spec: &Spec) {
        let thing = Thing { claim: "another tenant".to_owned(), complete: true };
        self.service.state.lock().things.insert(spec.name.clone(), thing);
    }
    async fn leave_half(&self, spec: &Spec) {
        let thing = Thing { claim: spec.claim.clone(), complete: false };
        self.service.state.lock().things.insert(spec.name.clone(), thing);
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        Some(Box::new(Http::new(Config::new(self.dir.path().join("no such file"))).unwrap()))
    }
}

#[tokio::test]
async fn calls_keep_the_contract() {
    let calls = Calls::start(|_| {}).await;
    assert_eq!(violations(&calls).await, []);
    assert_eq!(calls.service.state.lock().refused, 0, "every call was signed well");
}

#[tokio::test]
async fn what_an_outcome_means() {
    use FailureClass::{Fatal, Retryable, Unknown};
    let calls = Calls::start(|config| config.timeout_seconds = 1).await;
    let settings = calls.settings();
    for (trick, class, code, after) in [
        (Trick::Hang, Unknown, "timeout", None),
        (Trick::CutAfterActing, Unknown, "cut", None),
        (Trick::CutInAnswer, Unknown, "cut", None),
        (Trick::Status(500, ""), Retryable, "try_again", None),
        (Trick::Status(408, ""), Retryable, "try_again", None),
        (Trick::Status(503, "retry-after: 7"), Retryable, "try_again", Some(7_000)),
        (Trick::Status(429, "retry-after: 120"), Retryable, "try_again", Some(120_000)),
        (Trick::Status(429, "retry-after: nonsense"), Retryable, "try_again", None),
        (Trick::Status(400, ""), Fatal, "refused", None),
        (Trick::Status(404, ""), Fatal, "refused", None),
        (Trick::Status(302, "location: /elsewhere"), Fatal, "redirected", None),
        (Trick::Say("<html>"), Unknown, "bad_answer", None),
        (Trick::Say("{\"outputs\": []}"), Unknown, "bad_answer", None),
        (Trick::Say("[]"), Unknown, "bad_answer", None),
    ] {
        let spec = spec(settings.clone());
        calls.service.trick(trick.clone());
        let failure = calls.ensure(&spec).await.unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (class, code), "{trick:?}: {failure}");
        assert_eq!(failure.retry_after_ms, after, "{trick:?}");
        assert_eq!(failure.wrong_answers > 0, code == "bad_answer", "{trick:?}: the others may be an outage");
        calls.ensure(&spec).await.unwrap();
        assert_eq!(calls.count(&spec).await, 1, "{trick:?}");
    }
}

#[tokio::test]
async fn a_repeat_is_recognisable() {
    let calls = Calls::start(|_| {}).await;
    let spec = spec(calls.settings());
    calls.service.trick(Trick::CutAfterActing);
    calls.ensure(&spec).await.unwrap_err();
    calls.ensure(&spec).await.unwrap();
    let ids = calls.service.state.lock().ids.clone();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn an_answer_without_end() {
    let calls = Calls::start(|_| {}).await;
    let long: &'static str =
        Box::leak(format!("{{\"outputs\": {{\"x\": \"{}\"}}}}", "x".repeat(1024 * 1024)).into_boxed_str());
    calls.service.trick(Trick::Say(long));
    let failure = calls.ensure(&spec(calls.settings())).await.unwrap_err();
    let (class, code) = (failure.class, failure.code.as_str());
    assert_eq!((class, code, failure.wrong_answers), (FailureClass::Unknown, "bad_answer", 1));
}

#[tokio::test]
async fn what_cannot_be_reached() {
    let calls = Calls::start(|_| {}).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("http://{free}/"), "http://no-such-host.invalid/".to_owned()] {
        let failure = calls.ensure(&spec(json!({ "url": url }))).await.unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Retryable, "unreachable"), "{url}");
    }
}

#[tokio::test]
async fn private_addresses_are_refused_under_any_name() {
    let calls = Calls::start(|config| config.allow_private = false).await;
    let port = calls.service.address.port();
    for url in [
        format!("https://127.0.0.1:{port}/"),
        format!("https://localhost:{port}/"),
        format!("http://localhost:{port}/"),
    ] {
        let failure = calls.ensure(&spec(json!({ "url": url }))).await.unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Fatal, "address_refused"), "{url}");
    }
    assert_eq!(calls.service.state.lock().ids.len(), 0);

    let own = Calls::start(|config| {
        config.allow_private = false;
        config.allow_hosts.insert("localhost".to_owned());
    })
    .await;
    let url = format!("http://localhost:{}/", own.service.address.port());
    own.ensure(&spec(json!({ "url": url }))).await.unwrap();
}

#[tokio::test]
async fn the_other_side_may_still_act_for_a_while() {
    let calls = Calls::start(|config| config.in_flight_seconds = 33).await;
    assert_eq!(calls.http.in_flight(), Duration::from_secs(33));
}
