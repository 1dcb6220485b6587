//! Providers that inject faults: before or after their work, once or always, with every class of failure or
//! without an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, seq::IndexedRandom as _};
use serde_json::Value;
use tenantry_engine::{Clock as _, CommitError};
use tenantry_model::{Failure, Isolation, TenantId, Timestamp, Write};
use tenantry_provider::transfer::{self, Sink, Source};
use tenantry_provider::{
    Cell, Checked, Context, Data, Ensured, Fault as SettingsFault, Fence, Former, IsolationCheck, Kind,
    Observed, Provider, Purge, Registry, Removed, Retirement, Rotate, Rotated, Rows, Spec, Transfer,
    objects::Objects,
};
use tenantry_testkit::virtual_clock::VirtualClock;
use tokio::sync::{Notify, watch};

use crate::story::step_of;
use crate::world::World;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Retryable failure before the work.
    Retryable,
    /// Fatal failure before the work.
    Fatal,
    /// Unknown outcome; the work was not done.
    UnknownBefore,
    /// Unknown outcome; the work was done.
    UnknownAfter,
    /// Hangs before the work.
    HangBefore,
    /// Hangs after the work.
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

/// A time in which no provider works, or the ledger does not. It begins when a step starts.
#[derive(Clone, Debug)]
pub struct Outage {
    /// The step that it begins with.
    pub at: Started,
    /// Whether calls of providers fail without effect, fail without an answer, or hang; none: the ledger fails instead.
    pub providers: Option<How>,
    /// Its end, once it has begun.
    pub until: Option<Timestamp>,
    /// Calls of providers or of the ledger that have failed.
    pub failed: u32,
}

/// Length of an outage.
pub const OUTAGE: Duration = Duration::from_secs(600);

/// The start of a step: kind of the operation, key, and whether it runs forward.
pub type Started = (String, String, bool);

/// Receives the start of a step.
pub type AtStart = Box<dyn FnMut(&Started) + Send>;

/// Selects calls that fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Key of the step.
    pub step: String,
    /// Whether the action fails, or its compensation.
    pub forward: bool,
    /// How the calls fail.
    pub how: How,
    /// Number of failing calls; `u32::MAX` means all.
    pub times: u32,
}

impl Fault {
    pub fn new(step: &str, forward: bool, how: How, times: u32) -> Self {
        Self { step: step.to_owned(), forward, how, times }
    }
}

/// How often each call is repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// Once.
    #[default]
    Once,
    /// Twice, in sequence.
    InTurn,
    /// Twice, concurrently.
    AtOnce,
}

/// The faults to inject, and the violations found.
pub struct FaultPlan {
    faults: Mutex<Vec<Fault>>,
    pub calls: Mutex<Calls>,
    /// Source of random faults: one call in five fails.
    chance: Mutex<Option<StdRng>>,
    /// Number of injected faults.
    struck: Mutex<u32>,
    over: Arc<Mutex<BTreeSet<String>>>,
    violations: Mutex<Vec<String>>,
    /// Name of the provider that reports removals without doing them.
    pub liar: Mutex<Option<String>>,
    /// Result of the databases' isolation checks; none disables the checks.
    pub matrix: Mutex<Option<Vec<Cell>>>,
    /// Name of the provider whose `observe` does not answer.
    pub silent: Mutex<Option<String>>,
    clock: Mutex<Option<VirtualClock>>,
    providers: Mutex<Option<Registry>>,
    /// The outage to come or in progress.
    pub outage: Mutex<Option<Outage>>,
    /// Notified when the outage begins.
    pub outage_began: Notify,
    /// Called with each step that starts, before its attempt.
    pub at_start: Mutex<Option<AtStart>>,
    /// Every step that was started, in order.
    pub started: Mutex<Vec<Started>>,
    /// Every running call holds a receiver.
    under_way: watch::Sender<()>,
    /// Running calls of each provider, and the highest number so far.
    calls_of: Mutex<BTreeMap<String, (Arc<()>, usize)>>,
}

/// Entry in the set of finished work for a created resource or a completed step.
pub fn made(what: &str) -> String {
    format!("made {what}")
}

/// Entry in the set of finished work for a removed resource.
pub fn removed(what: &str) -> String {
    format!("removed {what}")
}

impl FaultPlan {
    pub fn new(over: Arc<Mutex<BTreeSet<String>>>) -> Self {
        let (faults, calls, chance, struck, violations, clock, providers) = Default::default();
        Self {
            faults,
            calls,
            chance,
            struck,
            over,
            violations,
            liar: Mutex::default(),
            matrix: Mutex::default(),
            silent: Mutex::default(),
            outage: Mutex::default(),
            outage_began: Notify::new(),
            at_start: Mutex::default(),
            started: Mutex::default(),
            clock,
            providers,
            under_way: watch::Sender::default(),
            calls_of: Mutex::default(),
        }
    }

    /// Counts a call of this provider as running until the returned value is dropped.
    fn counted(&self, provider: &str) -> Arc<()> {
        let mut calls = self.calls_of.lock();
        let (under_way, most) = calls.entry(provider.to_owned()).or_default();
        let counted = Arc::clone(under_way);
        *most = (*most).max(Arc::strong_count(under_way) - 1);
        counted
    }

    /// Highest number of concurrent calls of this provider.
    pub fn most_at_once(&self, provider: &str) -> usize {
        self.calls_of.lock().get(provider).map_or(0, |(_, most)| *most)
    }

    /// Returns when no call is running.
    pub async fn settled(&self) {
        self.under_way.closed().await;
    }

    pub fn set(&self, clock: &VirtualClock, faults: &[Fault]) {
        *self.clock.lock() = Some(clock.clone());
        *self.faults.lock() = faults.to_vec();
    }

    /// From now on one call in five fails, in a random way.
    pub fn by_chance(&self, clock: &VirtualClock, chance: StdRng) {
        *self.clock.lock() = Some(clock.clone());
        *self.chance.lock() = Some(chance);
    }

    /// Sets the providers with which templates are read to find steps.
    pub fn providers(&self, providers: &Registry) {
        *self.providers.lock() = Some(providers.clone());
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    pub fn struck(&self) -> u32 {
        *self.struck.lock()
    }

    /// Records a violation if finished work starts again.
    pub fn begun(&self, what: &str, by: &str) {
        if self.over.lock().contains(what) {
            let again = format!("{what} according to the ledger, then started again by {by}");
            self.violations.lock().push(again);
        }
    }

    fn step_of(&self, spec: &Spec) -> String {
        let providers = self.providers.lock();
        step_of(spec, providers.as_ref().expect("a process that has started"))
    }

    fn take(&self, step: &str, forward: bool) -> Option<How> {
        if let Some(chance) = self.chance.lock().as_mut() {
            let how = How::ALL.choose(chance).copied().filter(|_| chance.random_ratio(1, 5));
            *self.struck.lock() += u32::from(how.is_some());
            return how;
        }
        let mut faults = self.faults.lock();
        let fault = faults.iter_mut().find(|f| f.step == step && f.forward == forward && f.times > 0)?;
        fault.times = if fault.times == u32::MAX { u32::MAX } else { fault.times - 1 };
        *self.struck.lock() += 1;
        Some(fault.how)
    }

    /// Begins the outage if one of these steps is its beginning, and records the steps.
    pub fn starts(&self, steps: impl Iterator<Item = Started>) {
        for step in steps {
            if let (Some(outage), Some(clock)) = (self.outage.lock().as_mut(), &*self.clock.lock())
                && outage.at == step
            {
                outage.until.get_or_insert(clock.now() + OUTAGE);
                self.outage_began.notify_one();
            }
            if let Some(at_start) = self.at_start.lock().as_mut() {
                at_start(&step);
            }
            self.started.lock().push(step);
        }
    }

    /// How calls of providers fail at this moment because of an outage.
    fn outage_in_progress(&self) -> Option<How> {
        let now = self.clock.lock().as_ref()?.now();
        self.outage.lock().as_ref().filter(|outage| outage.until.is_some_and(|until| now < until))?.providers
    }

    /// How a call of the providers, or of the ledger, fails because of the outage; and the number of such calls.
    fn down(&self, ledger: bool) -> Option<(How, u32)> {
        let now = self.clock.lock().as_ref()?.now();
        let mut outage = self.outage.lock();
        let outage = outage.as_mut().filter(|outage| outage.until.is_some_and(|until| now < until))?;
        if outage.providers.is_none() != ledger {
            return None;
        }
        outage.failed += 1;
        Some((outage.providers.unwrap_or(How::Retryable), outage.failed))
    }

    /// Fails, or hangs, while the providers are down, without an effect of the call.
    async fn works(&self) -> Result<(), Failure> {
        match self.down(false) {
            None => Ok(()),
            Some((How::HangBefore, _)) => self.hang().await,
            Some((how, _)) => Err(Self::outage_failure(how)),
        }
    }

    /// Fails while the ledger is down.
    pub fn ledger_works(&self) -> Result<(), CommitError> {
        let why = || Err(CommitError::Unavailable("injected outage".to_owned()));
        self.down(true).map_or(Ok(()), |_| why())
    }

    fn outage_failure(how: How) -> Failure {
        match how {
            How::Retryable => Failure::retryable("unreachable", "injected outage"),
            _ => Failure::unknown("connection_lost", "injected outage"),
        }
    }

    /// True once the outage has begun and is over.
    pub fn outage_is_over(&self, now: Timestamp) -> bool {
        let until = self.outage.lock().as_ref().and_then(|outage| outage.until);
        until.is_some_and(|until| now >= until)
    }

    fn failure(how: How) -> Failure {
        match how {
            How::Retryable => Failure::retryable("test", "injected failure").after(Duration::from_millis(5)),
            How::Fatal => Failure::fatal("test", "injected fatal failure"),
            How::UnknownBefore | How::UnknownAfter | How::HangBefore | How::HangAfter => {
                Failure::unknown("test", "injected missing answer")
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

    /// Injects a fault into a step without a provider, at its start or, with `halfway`, after a part of its
    /// work, as the plan says.
    pub async fn strike(&self, step: &str, halfway: bool) -> Result<(), Failure> {
        // Not a call of a provider.
        if let Some(how) = self.outage_in_progress() {
            return Err(Self::outage_failure(how));
        }
        let wanted = |how: How| matches!(how, How::UnknownAfter | How::HangAfter) == halfway;
        if !self.faults.lock().iter().any(|f| f.step == step && wanted(f.how)) {
            return Ok(());
        }
        match self.take(step, true) {
            None => Ok(()),
            Some(How::HangBefore | How::HangAfter) => self.hang().await,
            Some(how) => Err(Self::failure(how)),
        }
    }

    /// Injects a fault before the work, and returns the fault to inject after it. A transactional call does
    /// not hang; its outcome is unknown instead.
    async fn before(&self, step: &str, forward: bool, in_place: bool) -> Result<Option<How>, Failure> {
        match (!in_place).then(|| self.down(false)).flatten() {
            None => {}
            // The first of the calls without an answer takes effect.
            Some((How::UnknownBefore, 1)) => return Ok(Some(How::UnknownAfter)),
            Some((How::HangBefore, _)) => return self.hang().await,
            Some((how, _)) => return Err(Self::outage_failure(how)),
        }
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

/// A provider with injected faults.
pub struct Faulty<P> {
    inner: Arc<P>,
    plan: Arc<FaultPlan>,
}

impl<P: Provider> Faulty<P> {
    /// Fails while the providers are down, if this one is outside of the registry.
    async fn moves(&self) -> Result<(), Failure> {
        if self.inner.transactional() { Ok(()) } else { self.plan.works().await }
    }

    fn told(&self, spec: &Spec) -> String {
        format!("{} of operation {}", self.plan.step_of(spec), spec.operation)
    }

    pub fn over(inner: P, world: &World) -> Self {
        Self { inner: Arc::new(inner), plan: world.plan.clone() }
    }

    /// Makes a call as often as the plan says. All calls must succeed. A started call runs to completion even
    /// if its process has died, as the request to a disk or a server does.
    async fn call<T, C>(&self, context: &Context, spec: &Spec, call: C) -> Result<T, Failure>
    where
        T: Send + 'static,
        C: for<'a> Fn(&'a P, &'a Context, &'a Spec) -> BoxFuture<'a, Result<T, Failure>>
            + Clone
            + Send
            + 'static,
    {
        if self.inner.transactional() {
            let call = || call(&self.inner, context, spec);
            return self.as_often(call).await;
        }
        let call = || {
            let (inner, context, spec) = (self.inner.clone(), context.clone(), spec.clone());
            let (call, under_way) = (call.clone(), self.plan.under_way.subscribe());
            let counted = self.plan.counted(inner.name());
            let called = tokio::spawn(async move {
                let called = call(&inner, &context, &spec).await;
                drop((counted, under_way));
                called
            });
            async { called.await.expect("no panic") }
        };
        self.as_often(call).await
    }

    async fn as_often<T, C>(&self, call: impl Fn() -> C) -> Result<T, Failure>
    where
        C: Future<Output = Result<T, Failure>>,
    {
        let calls = *self.plan.calls.lock();
        let (first, second) = match calls {
            Calls::Once => return call().await,
            Calls::InTurn => (call().await, call().await),
            Calls::AtOnce => tokio::join!(call(), call()),
        };
        for failure in first.as_ref().err().into_iter().chain(second.as_ref().err()) {
            self.plan.violations.lock().push(format!("one of two calls {calls:?} failed: {failure:?}"));
        }
        first.and(second)
    }
}

#[async_trait]
impl<P: Provider> IsolationCheck for Faulty<P> {
    async fn check(&self, _: &[TenantId]) -> Result<Checked, Failure> {
        let cells = self.plan.matrix.lock().clone().unwrap_or_default();
        Ok(Checked { cells, trusted: Vec::new() })
    }
}

/// Fault key of the rotation of this step's resource.
pub fn rotation(step: &str) -> String {
    format!("rotation of {step}")
}

#[async_trait]
impl<P: Provider> Rotate for Faulty<P> {
    async fn rotate(&self, context: &Context, spec: &Spec, former: Former) -> Result<Rotated, Failure> {
        let after = self.plan.before(&rotation(&self.plan.step_of(spec)), true, false).await?;
        let rotated = self.call(context, spec, move |inner, context, spec| {
            inner.rotate().expect("it was asked for").rotate(context, spec, former)
        });
        let rotated = rotated.await?;
        self.plan.after(after).await?;
        Ok(rotated)
    }
    async fn retire(&self, rows: &dyn Rows, retirement: &Retirement) -> Result<Vec<Write>, Failure> {
        self.inner.rotate().expect("it was asked for").retire(rows, retirement).await
    }
}

#[async_trait]
impl<P: Provider> Transfer for Faulty<P> {
    fn form(&self) -> &'static str {
        self.inner.transfer().map_or("", Transfer::form)
    }
    async fn export(
        &self,
        context: &Context,
        spec: &Spec,
        sink: &mut dyn Sink,
    ) -> Result<transfer::Content, Failure> {
        self.moves().await?;
        self.inner.transfer().expect("it was asked for").export(context, spec, sink).await
    }
    async fn load(
        &self,
        context: &Context,
        spec: &Spec,
        source: &mut dyn Source,
    ) -> Result<Vec<Write>, Failure> {
        self.moves().await?;
        self.inner.transfer().expect("it was asked for").load(context, spec, source).await
    }
    fn one_way(&self) -> Option<&'static str> {
        self.inner.transfer().and_then(Transfer::one_way)
    }
}

#[async_trait]
impl<P: Provider> Provider for Faulty<P> {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn kind(&self) -> Kind {
        self.inner.kind()
    }
    fn isolates(&self, isolation: Isolation) -> bool {
        self.inner.isolates(isolation)
    }
    fn transactional(&self) -> bool {
        self.inner.transactional()
    }

    fn transfer(&self) -> Option<&dyn Transfer> {
        self.inner.transfer().map(|_| self as &dyn Transfer)
    }
    fn purge(&self) -> Option<&dyn Purge> {
        self.inner.purge()
    }
    fn data(&self) -> Option<&dyn Data> {
        self.inner.data()
    }
    fn objects(&self) -> Option<&dyn Objects> {
        self.inner.objects()
    }
    fn fence(&self) -> Option<&dyn Fence> {
        self.inner.fence()
    }
    fn rotate(&self) -> Option<&dyn Rotate> {
        self.inner.rotate().map(|_| self as &dyn Rotate)
    }
    fn isolation(&self) -> Option<&dyn IsolationCheck> {
        let checked = self.inner.kind() == Kind::Database && self.plan.matrix.lock().is_some();
        checked.then_some(self)
    }
    async fn start(&self) -> Result<(), Failure> {
        self.inner.start().await
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
    fn check_name(&self, name: &str) -> Result<(), String> {
        self.inner.check_name(name)
    }
    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        self.plan.begun(&made(&spec.resource.to_string()), &self.told(spec));
        let in_place = self.inner.transactional();
        let after = self.plan.before(&self.plan.step_of(spec), true, in_place).await?;
        let ensured = self.call(context, spec, |inner, context, spec| inner.ensure(context, spec)).await?;
        self.plan.after(after).await?;
        Ok(ensured)
    }
    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        self.moves().await?;
        if self.plan.silent.lock().as_deref() == Some(self.inner.name()) {
            std::future::pending::<()>().await;
        }
        self.inner.observe(context, spec).await
    }
    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        self.plan.begun(&removed(&spec.resource.to_string()), &self.told(spec));
        if self.plan.liar.lock().as_deref() == Some(self.inner.name()) {
            return Ok(Removed::default());
        }
        let after = self.plan.before(&self.plan.step_of(spec), false, self.inner.transactional()).await?;
        let removed = self.call(context, spec, |inner, context, spec| inner.remove(context, spec)).await?;
        self.plan.after(after).await?;
        Ok(removed)
    }
    async fn probe(&self) -> Result<(), Failure> {
        // A probe has a limit of the machine's time, which a virtual clock does not reach.
        self.plan.down(false).map_or(Ok(()), |(how, _)| Err(FaultPlan::outage_failure(how)))?;
        self.inner.probe().await
    }
}
