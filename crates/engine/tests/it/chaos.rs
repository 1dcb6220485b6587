//! Property test of the executor: random plans, results of attempts, signals, crashes and ledger failures
//! over several processes. Every operation ends, and the outside state agrees with the ledger.

use parking_lot::Mutex;
use proptest::prelude::*;
use std::time::Duration;
use tenantry_engine::{Direction, SignalKind, Step};
use tenantry_model::Failure;
use tenantry_testkit::crash_ledger::{Fault, Faults, play};
use tenantry_testkit::virtual_clock::VirtualClock;

use crate::crash::Story;
use crate::plan::{self, Shape, busy, lost, never, step, wrong};
use crate::world::{Act, World};

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        3 => Just(busy()), 2 => Just(wrong()), 1 => Just(busy().after(Duration::from_secs(30))), 3 => Just(lost()), 1 => Just(never())
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => failure().prop_map(Act::Fail),
        3 => failure().prop_map(Act::FailAfter),
        1 => Just(Act::Hang),
        1 => Just(Act::HangAfter),
        2 => (1u64..30).prop_map(|s| Act::Take(Duration::from_secs(s))),
        2 => (1u64..15).prop_map(|s| Act::Late(Duration::from_secs(s))),
        1 => Just(Act::Panic),
        1 => Just(Act::NoteThenHang),
    ]
}

type Acts = Vec<(usize, bool, Vec<Act>)>;

fn acts() -> impl Strategy<Value = Acts> {
    proptest::collection::vec((0usize..6, any::<bool>(), proptest::collection::vec(act(), 1..4)), 0..5)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = (any::<u8>(), 0u32..3, 0u64..2, 0u8..10, any::<bool>());
    proptest::collection::vec(one, 1..6).prop_map(|shapes| {
        let key = |i: usize| format!("s{i}");
        let steps = shapes.iter().enumerate().map(|(i, (needs, retries, delay, kind, park))| {
            let needs: Vec<String> = (0..i).filter(|j| needs >> j & 1 == 1).map(key).collect();
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            // A late call takes effect within 15 s; the compensation repeats after 20 s.
            let plain = step(&key(i))
                .needs(&needs)
                .retries(*retries)
                .retry_for(u64::from(*retries) * 20)
                .backoff(delay * 5_000)
                .timeout(20)
                .in_flight(20);
            let shaped = match kind {
                0 => plain.approval(),
                1 => plain.timer(30),
                2 | 3 => plain.registry(),
                4 => plain.detached(&["c0", "c1"]),
                _ => plain,
            };
            if *park { shaped.park() } else { shaped }
        });
        steps.collect()
    })
}

fn signals() -> impl Strategy<Value = Vec<SignalKind>> {
    let kind = prop_oneof![
        3 => Just(SignalKind::Pause),
        3 => Just(SignalKind::Resume),
        2 => Just(SignalKind::Retry),
        2 => Just(SignalKind::Cancel),
    ];
    proptest::collection::vec(kind, 0..4)
}

fn lives() -> impl Strategy<Value = Vec<Faults>> {
    let fault = proptest::sample::select(Fault::ALL.to_vec());
    proptest::collection::vec(proptest::collection::btree_map(1u64..30, fault, 0..4), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_operation_ends_consistently(steps in steps(), acts in acts(), signals in signals(), lives in lives()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let played = runtime.block_on(async {
            let clock = VirtualClock::start();
            let world = World::new(clock.clone());
            for (which, forward, acts) in acts {
                let key = ["s0", "s1", "s2", "s3", "c0", "c1"][which];
                world.script(key, if forward { Direction::Run } else { Direction::Compensate }, acts);
            }
            let runs = vec![plan::run(steps)];
            let story = Story { world, runs, signals: Mutex::new(signals), end: None };
            play(&story, &clock, &lives).await
        });
        prop_assert!(played.is_ok(), "{}", played.unwrap_err());
    }
}
