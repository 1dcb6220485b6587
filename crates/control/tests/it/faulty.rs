//! Providers that fail as told: before or after they have done their work, once or always, by every class of failure
//! and by not answering at all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tenantry_model::Failure;
use tenantry_providers::{Context, Ensured, Fault as SettingsFault, Kind, Observed, Provider, Removed, Spec};
use tenantry_testkit::virtual_clock::VirtualClock;

use crate::world::World;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing happened; may be tried again.
    Retryable,
    /// It cannot be done.
    Fatal,
    /// No answer; nothing happened.
    UnknownBefore,
    /// No answer; it happened.
    UnknownAfter,
    /// Hangs before it does anything.
    HangBefore,
    /// Does it and hangs.
    HangAfter,
}

impl How {
    pub const ALL: [Self; 6] = [
        Self::Retryable,
        Self::Fatal,
        Self::UnknownBefore,
        Self::UnknownAfter,
        Self::HangBefore,
        Self::HangAfter,
    ];
}

/// Which calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The step's key.
    pub step: &'static str,
    /// Forward, or undo.
    pub forward: bool,
    /// How.
    pub how: How,
    /// How many calls; `u32::MAX`: all of them.
    pub times: u32,
}

/// The faults to come, and the book of violations.
pub struct FaultPlan {
    faults: Mutex<Vec<Fault>>,
    /// Every call is made twice.
    pub doubled: Mutex<bool>,
    done: Arc<Mutex<BTreeSet<String>>>,
    violations: Mutex<Vec<String>>,
    clock: Mutex<Option<VirtualClock>>,
}

impl FaultPlan {
    pub fn new(done: Arc<Mutex<BTreeSet<String>>>) -> Self {
        let (faults, violations) = Default::default();
        Self { faults, doubled: Mutex::new(false), done, violations, clock: Mutex::new(None) }
    }

    pub fn set(&self, clock: &VirtualClock, faults: &[Fault]) {
        *self.clock.lock() = Some(clock.clone());
        *self.faults.lock() = faults.to_vec();
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    fn take(&self, step: &str, forward: bool) -> Option<How> {
        let mut faults = self.faults.lock();
        let fault = faults.iter_mut().find(|f| f.step == step && f.forward == forward && f.times > 0)?;
        fault.times = if fault.times == u32::MAX { u32::MAX } else { fault.times - 1 };
        Some(fault.how)
    }

    fn failure(how: How) -> Failure {
        match how {
            How::Retryable => Failure::retryable("test", "told to fail").after(Duration::from_millis(5)),
            How::Fatal => Failure::fatal("test", "told to fail for good"),
            How::UnknownBefore | How::UnknownAfter | How::HangBefore | How::HangAfter => {
                Failure::unknown("test", "told not to answer")
            }
        }
    }

    async fn hang<T>(&self) -> T {
        let clock = self.clock.lock().clone();
        match clock {
            Some(clock) => clock.hang().await,
            None => std::future::pending().await,
        }
        unreachable!("a hanging call never answers")
    }

    /// Fails before anything is done, if told to (for calls that are no provider's).
    pub async fn strike(&self, step: &str, forward: bool) -> Result<(), Failure> {
        match self.take(step, forward) {
            None => Ok(()),
            Some(How::HangBefore | How::HangAfter) => self.hang().await,
            Some(how) => Err(Self::failure(how)),
        }
    }

    /// What goes wrong before the work; the answer says what is to go wrong after it.
    /// A call in place has nothing to wait for, so it does not hang: it gives no answer.
    async fn before(&self, step: &str, forward: bool, in_place: bool) -> Result<Option<How>, Failure> {
        match self.take(step, forward) {
            Some(How::HangBefore) if in_place => Err(Self::failure(How::UnknownBefore)),
            Some(How::HangAfter) if in_place => Ok(Some(How::UnknownAfter)),
            Some(How::HangBefore) => self.hang().await,
            Some(how @ (How::Retryable | How::Fatal | How::UnknownBefore)) => Err(Self::failure(how)),
            after => Ok(after),
        }
    }

    async fn after(&self, how: Option<How>) -> Result<(), Failure> {
        match how {
            None => Ok(()),
            Some(How::HangAfter) => self.hang().await,
            Some(how) => Err(Self::failure(how)),
        }
    }
}

/// A provider under a plan.
pub struct Faulty<P> {
    inner: P,
    plan: Arc<FaultPlan>,
}

impl<P: Provider> Faulty<P> {
    pub fn over(inner: P, world: &World) -> Self {
        Self { inner, plan: world.plan.clone() }
    }

    /// The step's key: the shipped templates name steps by kind, but for the mails.
    fn step(&self) -> &'static str {
        match self.inner.kind() {
            Kind::Mail => "welcome",
            kind => kind.as_str(),
        }
    }
}

#[async_trait]
impl<P: Provider> Provider for Faulty<P> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn kind(&self) -> Kind {
        self.inner.kind()
    }
    fn transactional(&self) -> bool {
        self.inner.transactional()
    }
    fn in_flight(&self) -> Duration {
        self.inner.in_flight()
    }
    fn settings_schema(&self) -> Value {
        self.inner.settings_schema()
    }
    fn check(&self, settings: &Value) -> Vec<SettingsFault> {
        self.inner.check(settings)
    }
    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        if self.plan.done.lock().contains(&spec.resource.to_string()) {
            self.plan.violations.lock().push(format!("{} was made again after it was done", self.step()));
        }
        let after = self.plan.before(self.step(), true, self.inner.transactional()).await?;
        if *self.plan.doubled.lock() {
            self.inner.ensure(context, spec).await?;
        }
        let ensured = self.inner.ensure(context, spec).await?;
        self.plan.after(after).await?;
        Ok(ensured)
    }
    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        self.inner.observe(context, spec).await
    }
    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let after = self.plan.before(self.step(), false, false).await?;
        if *self.plan.doubled.lock() {
            self.inner.remove(context, spec).await?;
        }
        let removed = self.inner.remove(context, spec).await?;
        self.plan.after(after).await?;
        Ok(removed)
    }
    async fn probe(&self) -> Result<(), Failure> {
        self.inner.probe().await
    }
}
