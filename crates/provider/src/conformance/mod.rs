//! The conformance suite: checks any provider against the contract of [`Provider`](crate::Provider). It
//! returns violations instead of panicking, so that a test can show that the suite detects them. It calls the
//! provider, and keeps the registry's rows in memory.
//!
//! The author of a provider implements [`Environment`], and writes a test that calls
//! `must_keep_contract(&environment).await`. `examples/provider` is a provider with such a test.

pub mod folders;
pub mod transfer;
pub mod world;

use std::pin::Pin;
use std::task::{Context as Waking, Poll};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tenantry_model::{Failure, FailureClass};

use crate::kinds;
use crate::{Ensured, Observed, Provider, Removed, Spec};
use world::{World, object, personal, spec};

/// A violation of one rule of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// Description of the provider's behaviour.
    pub how: String,
}

type Verdict = Result<(), Violation>;

fn broken(rule: &'static str, how: impl std::fmt::Debug) -> Violation {
    Violation { rule, how: format!("{how:?}") }
}

/// A provider under test, and access to the system in which it creates resources.
#[async_trait]
pub trait Environment: Send + Sync {
    /// The provider under test.
    fn provider(&self) -> &dyn Provider;
    /// The registry, keys and notes that it gets.
    fn world(&self) -> &World;
    /// Valid settings: those of the kind and those of the provider, in one object.
    fn settings(&self) -> Value;
    /// Number of resources that exist for this spec.
    async fn count(&self, spec: &Spec) -> usize;
    /// A text that describes all resources, and differs after any of them has changed.
    async fn snapshot(&self) -> String;
    /// Creates a resource with the spec's name and another owner tag.
    async fn plant_foreign(&self, spec: &Spec);
    /// Leaves the resource incomplete, as an interrupted attempt would.
    async fn leave_half(&self, spec: &Spec);
    /// The same provider with an environment in which its probe must fail; none if there is no such environment.
    async fn unusable(&self) -> Option<Box<dyn Provider>>;
}

/// Polls a future at most `left` times; returns none if it is not ready by then.
struct Polls<F> {
    future: Pin<Box<F>>,
    left: usize,
}

impl<F: Future> Future for Polls<F> {
    type Output = Option<F::Output>;
    fn poll(mut self: Pin<&mut Self>, waking: &mut Waking<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.future.as_mut().poll(waking).map(Some)
    }
}

/// More polls than any attempt needs to finish.
const MOST_POLLS: usize = 400;

struct Suite<'a> {
    environment: &'a dyn Environment,
    leaks: Mutex<Vec<Violation>>,
}

/// Checks all rules and returns the violations; none if the provider keeps the contract.
pub async fn violations(environment: &dyn Environment) -> Vec<Violation> {
    let suite = Suite { environment, leaks: Mutex::default() };
    let verdicts = [
        suite.repeated().await,
        suite.observed().await,
        suite.removed_twice().await,
        suite.dropped().await,
        suite.half_done().await,
        suite.foreign().await,
        suite.neighbours().await,
        suite.together().await,
        suite.against_each_other().await,
        suite.own_data().await,
        suite.probed().await,
        suite.settings().await,
    ];
    let mut violations: Vec<Violation> = verdicts.into_iter().filter_map(Result::err).collect();
    violations.append(&mut suite.leaks.lock());
    violations.dedup_by(|a, b| a.rule == b.rule);
    violations
}

/// Panics with every violation unless the provider keeps the contract.
pub async fn must_keep_contract(environment: &dyn Environment) {
    let violations = violations(environment).await;
    assert!(violations.is_empty(), "{violations:#?}");
}

/// The same spec with the tag of another owner.
pub fn rival(spec: &Spec) -> Spec {
    Spec { claim: "tenantry:another:owner".to_owned(), ..spec.clone() }
}

/// Creates the resource and applies its rows to the registry in memory. Panics if the provider fails.
pub async fn ensure(environment: &dyn Environment, spec: &Spec) {
    let ensured = environment.provider().ensure(&environment.world().context(), spec).await;
    environment.world().registry.apply(&ensured.expect("the resource is made").writes);
}

impl Suite<'_> {
    fn spec(&self) -> Spec {
        spec(self.environment.settings())
    }

    /// Searches a text for personal data and secrets; records the first one found as a violation.
    fn look_for_leaks(&self, spec: &Spec, place: &str, text: &str) {
        let secrets = self.environment.world().secrets();
        let found = personal(spec)
            .into_iter()
            .chain(secrets.iter().map(String::as_str))
            .find(|word| text.contains(word));
        if let Some(word) = found {
            self.leaks.lock().push(broken("leak", format!("{word} in {place}: {text}")));
        }
    }

    fn look_at_failure(&self, spec: &Spec, failure: &Failure) {
        self.look_for_leaks(spec, "a failure", &json!(failure).to_string());
    }

    fn record(&self, spec: &Spec, ensured: &Ensured) {
        self.environment.world().registry.apply(&ensured.writes);
        self.look_for_leaks(spec, "outputs", &ensured.outputs.to_string());
        self.look_for_leaks(spec, "rows", &format!("{:?}", ensured.writes));
    }

    async fn ensure(&self, spec: &Spec) -> Result<Ensured, Failure> {
        let done = self.environment.provider().ensure(&self.environment.world().context(), spec).await;
        match &done {
            Ok(ensured) => self.record(spec, ensured),
            Err(failure) => self.look_at_failure(spec, failure),
        }
        done
    }

    async fn remove(&self, spec: &Spec) -> Result<Removed, Failure> {
        let done = self.environment.provider().remove(&self.environment.world().context(), spec).await;
        match &done {
            Ok(removed) => {
                self.look_for_leaks(spec, "a receipt", &removed.receipt.to_string());
                self.environment.world().registry.apply(&removed.writes);
            }
            Err(failure) => self.look_at_failure(spec, failure),
        }
        done
    }

    async fn observe(&self, spec: &Spec) -> Result<Observed, Failure> {
        let seen = self.environment.provider().observe(&self.environment.world().context(), spec).await;
        if let Err(failure) = &seen {
            self.look_at_failure(spec, failure);
        }
        seen
    }

    async fn must_ensure(&self, rule: &'static str, spec: &Spec) -> Result<Ensured, Violation> {
        self.ensure(spec).await.map_err(|failure| broken(rule, failure))
    }

    async fn must_remove(&self, rule: &'static str, spec: &Spec) -> Result<Removed, Violation> {
        self.remove(spec).await.map_err(|failure| broken(rule, failure))
    }

    async fn must_be_one_and_healthy(&self, rule: &'static str, spec: &Spec) -> Verdict {
        let count = self.environment.count(spec).await;
        if count != 1 {
            return Err(broken(rule, format!("there are {count} things")));
        }
        match self.observe(spec).await {
            Ok(seen) if seen.is_healthy() => Ok(()),
            other => Err(broken(rule, other)),
        }
    }

    async fn must_be_absent(&self, rule: &'static str, spec: &Spec) -> Verdict {
        let count = self.environment.count(spec).await;
        match self.observe(spec).await {
            Ok(Observed::Absent) if count == 0 => Ok(()),
            other => Err(broken(rule, (count, other))),
        }
    }

    async fn repeated(&self) -> Verdict {
        let rule = "a repeated ensure gives the same outputs and one resource";
        let spec = self.spec();
        let first = self.must_ensure(rule, &spec).await?;
        let second = self.must_ensure(rule, &spec).await?;
        if first.outputs != second.outputs {
            return Err(broken(rule, (first.outputs, second.outputs)));
        }
        let kind = self.environment.provider().kind();
        if let Some(why) = kinds::outputs_fault(kind, &first.outputs) {
            return Err(broken("outputs are those of the kind", why));
        }
        self.must_be_one_and_healthy(rule, &spec).await
    }

    async fn observed(&self) -> Verdict {
        let rule = "observe reports the resource and changes nothing";
        let spec = self.spec();
        self.must_be_absent(rule, &spec).await?;
        self.must_ensure(rule, &spec).await?;
        let before = self.environment.snapshot().await;
        self.must_be_one_and_healthy(rule, &spec).await?;
        let (a, b) = (self.observe(&spec).await, self.observe(&spec).await);
        if a != b || before != self.environment.snapshot().await {
            return Err(broken(rule, "observe changed something"));
        }
        self.must_remove(rule, &spec).await?;
        self.must_be_absent(rule, &spec).await
    }

    async fn removed_twice(&self) -> Verdict {
        let rule = "removing an absent resource succeeds";
        let spec = self.spec();
        self.must_remove(rule, &spec).await?;
        self.must_ensure(rule, &spec).await?;
        self.must_remove(rule, &spec).await?;
        self.must_remove(rule, &spec).await?;
        self.must_be_absent(rule, &spec).await
    }

    async fn dropped(&self) -> Verdict {
        let rule = "a dropped attempt can be repeated";
        let (provider, world) = (self.environment.provider(), self.environment.world());
        for left in 1..=MOST_POLLS {
            let spec = self.spec();
            let context = world.context();
            let ensured = Polls { future: Box::pin(provider.ensure(&context, &spec)), left }.await;
            let whole = ensured.is_some();
            if let Some(Ok(ensured)) = &ensured {
                self.record(&spec, ensured);
            }
            self.must_ensure(rule, &spec).await?;
            self.must_be_one_and_healthy(rule, &spec).await?;

            let removed = Polls { future: Box::pin(provider.remove(&context, &spec)), left }.await;
            let whole = whole && removed.is_some();
            if let Some(Ok(removed)) = &removed {
                world.registry.apply(&removed.writes);
            }
            self.must_remove(rule, &spec).await?;
            self.must_be_absent(rule, &spec).await?;
            if whole {
                return Ok(());
            }
        }
        Err(broken(rule, format!("not done after {MOST_POLLS} polls")))
    }

    async fn half_done(&self) -> Verdict {
        let rule = "an incomplete resource is completed";
        let spec = self.spec();
        self.environment.leave_half(&spec).await;
        self.must_ensure(rule, &spec).await?;
        self.must_be_one_and_healthy(rule, &spec).await?;
        let other = self.spec();
        self.environment.leave_half(&other).await;
        self.must_remove(rule, &other).await?;
        self.must_be_absent(rule, &other).await
    }

    async fn foreign(&self) -> Verdict {
        let rule = "another owner's resource is never touched";
        let spec = self.spec();
        self.environment.plant_foreign(&spec).await;
        let before = self.environment.snapshot().await;
        match self.ensure(&spec).await {
            Err(failure) if failure.class == FailureClass::Fatal && failure.code == "name_taken" => {}
            other => return Err(broken(rule, other)),
        }
        match self.observe(&spec).await {
            Ok(Observed::Foreign) => {}
            other => return Err(broken(rule, other)),
        }
        // Compensation removes what an attempt may have left; finding nothing must not stop it.
        self.must_remove(rule, &spec).await?;
        let after = self.environment.snapshot().await;
        if before != after {
            return Err(broken(rule, (before, after)));
        }
        Ok(())
    }

    async fn neighbours(&self) -> Verdict {
        let rule = "a removal affects one tenant";
        let (a, b) = (self.spec(), self.spec());
        let made_a = self.must_ensure(rule, &a).await?;
        let made_b = self.must_ensure(rule, &b).await?;
        let mixed = [(&made_a, &b), (&made_b, &a)]
            .into_iter()
            .find(|(made, other)| made.outputs.to_string().contains(&other.tenant.id.to_string()));
        if let Some((made, _)) = mixed {
            return Err(broken(rule, &made.outputs));
        }
        let before = self.observe(&b).await;
        self.must_remove(rule, &a).await?;
        self.must_be_absent(rule, &a).await?;
        self.must_be_one_and_healthy(rule, &b).await?;
        let after = self.observe(&b).await;
        if before != after {
            return Err(broken(rule, (before, after)));
        }
        Ok(())
    }

    async fn together(&self) -> Verdict {
        let rule = "concurrent ensures create one resource";
        let spec = self.spec();
        let (a, b) = tokio::join!(self.ensure(&spec), self.ensure(&spec));
        for done in [a, b] {
            if let Err(failure) = done
                && !failure.may_retry()
            {
                return Err(broken(rule, failure));
            }
        }
        self.must_ensure(rule, &spec).await?;
        self.must_be_one_and_healthy(rule, &spec).await
    }

    async fn against_each_other(&self) -> Verdict {
        let rule = "concurrent ensure and remove leave one of two results";
        for swapped in [false, true] {
            let mut spec = self.spec();
            if swapped {
                self.must_ensure(rule, &spec).await?;
                let _ = tokio::join!(self.remove(&spec), self.ensure(&spec));
            } else {
                let _ = tokio::join!(self.ensure(&spec), self.remove(&spec));
            }
            self.must_remove(rule, &spec).await?;
            self.must_be_absent(rule, &spec).await?;
            spec.generation += 1;
            self.must_ensure(rule, &spec).await?;
            self.must_be_one_and_healthy(rule, &spec).await?;
        }
        Ok(())
    }

    async fn own_data(&self) -> Verdict {
        let rule = "a tenant sees its own rows only";
        let Some(data) = self.environment.provider().data() else { return Ok(()) };
        let (a, b) = (self.spec(), self.spec());
        self.must_ensure(rule, &a).await?;
        self.must_ensure(rule, &b).await?;
        let canary = data.canary();
        let mut row = canary.row.clone();
        row.insert("id".to_owned(), json!("contract"));
        let fails = |failure: Failure| broken(rule, failure);
        let (scoped, other) = (data.scoped(a.tenant.id), data.scoped(b.tenant.id));
        scoped.insert(&canary.table, row).await.map_err(fails)?;
        let own = scoped.get(&canary.table, "contract").await.map_err(fails)?;
        let seen = other.get(&canary.table, "contract").await.map_err(fails)?;
        let deleted = other.delete(&canary.table, "contract").await.map_err(fails)?;
        let listed = other.list(&canary.table, 100, None).await.map_err(fails)?;
        let listed = listed.rows.iter().any(|row| row.get("id") == Some(&json!("contract")));
        let canary_seen = scoped.get(&canary.table, &canary.id).await.map_err(fails)?;
        let alive = data.scoped(canary.tenant).get(&canary.table, &canary.id).await.map_err(fails)?;
        if own.is_none() || seen.is_some() || deleted || listed || canary_seen.is_some() || alive.is_none() {
            return Err(broken(rule, (own, seen, deleted, listed, canary_seen, alive)));
        }
        Ok(())
    }

    async fn probed(&self) -> Verdict {
        let rule = "probe reports whether the provider works";
        self.environment.provider().probe().await.map_err(|failure| broken(rule, failure))?;
        match self.environment.unusable().await {
            Some(provider) if provider.probe().await.is_ok() => {
                Err(broken(rule, "it succeeds where nothing works"))
            }
            _ => Ok(()),
        }
    }

    async fn settings(&self) -> Verdict {
        let rule = "unknown settings are rejected";
        let provider = self.environment.provider();
        let good = self.environment.settings();
        let faults = provider.check(&good);
        if !faults.is_empty() {
            return Err(broken(rule, faults));
        }
        let mut unknown = object(good);
        unknown.insert("no_such_setting".to_owned(), json!(1));
        if provider.check(&Value::Object(unknown)).is_empty() {
            return Err(broken(rule, "accepted"));
        }
        let schema = provider.settings_schema();
        let properties = schema.get("properties").and_then(Value::as_object);
        let mut keys = properties.into_iter().flat_map(|all| all.keys());
        if let Some(key) = keys.find(|key| kinds::keys(provider.kind()).contains(&key.as_str())) {
            return Err(broken(rule, format!("`{key}` is a setting of the kind")));
        }
        match schema.get("additionalProperties") {
            Some(Value::Bool(false)) => Ok(()),
            other => Err(broken(rule, other)),
        }
    }
}
