//! A fuzzer of migrations: a grammar writes sets of files for each isolation and tool, and each set is either refused with
//! file and line or keeps every promise to its tenants and their neighbours.
//!
//! `TENANTRY_TEST_SEED` is the first case's seed, `TENANTRY_FUZZ_CASES` their number. Without them a plain run tries the same
//! cases each time, and a run with `--full` others each time. A failure prints its case, made as small as it gets; with its
//! seed, the first case of a run is that case.

mod case;
mod code;
mod extensions;
mod fill;
mod found;
mod hostile;
mod known;
mod layout;
mod round_trip;
mod shrink;
mod tables;
mod watch;

use futures::StreamExt as _;
use futures::stream;
use tenantry_testkit::seed::seed;

use case::Case;
use round_trip::Ending;

/// Schema of another product's objects in the main database.
const BESIDE: &str = "beside";
/// Number of cases that run at once.
const AT_ONCE: usize = 4;
/// Seed of the first case of a plain run.
const PLAIN_SEED: u64 = 1000;

/// Seed of the first case, and the number of cases.
fn extent() -> (u64, u64) {
    let given = std::env::var("TENANTRY_FUZZ_CASES").ok().map(|text| text.parse().expect("a number"));
    let full = std::env::var_os("TENANTRY_TEST_FULL").is_some();
    let is_drawn = full || std::env::var_os("TENANTRY_TEST_SEED").is_some();
    (if is_drawn { seed() } else { PLAIN_SEED }, given.unwrap_or(if full { 300 } else { 25 }))
}

/// Runs a case; a panic is a failure too.
async fn run(case: Case) -> Result<Ending, String> {
    let task = tokio::spawn(async move { round_trip::hold(&case).await });
    task.await.unwrap_or_else(|error| Err(format!("panic: {error}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_fuzz() {
    if tenantry_testkit::database::admin().is_none() {
        return;
    }
    let (seed, count) = extent();
    println!("postgres_fuzz: {count} cases; repeat with TENANTRY_TEST_SEED={seed}");
    let cases = (0..count).map(|number| Case::new(seed.wrapping_add(number)));
    let ended: Vec<(Case, Result<Ending, String>)> = stream::iter(cases)
        .map(|case| async {
            let ending = run(case.clone()).await;
            if let Err(why) = &ending {
                println!("seed {}, {:?} fails: {why}", case.seed, case.model);
            }
            (case, ending)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let of = |is: fn(&Result<Ending, String>) -> bool| ended.iter().filter(|(_, ending)| is(ending)).count();
    let (held, refused) =
        (of(|it| matches!(it, Ok(Ending::Held(_)))), of(|it| matches!(it, Ok(Ending::Refused(_)))));
    let rows: usize =
        ended.iter().map(|(_, it)| if let Ok(Ending::Held(rows)) = it { *rows } else { 0 }).sum();
    println!("{held} held with {rows} rows, {refused} were refused, {} failed", of(Result::is_err));
    for (case, ending) in &ended {
        if let Ok(Ending::Refused(why)) = ending {
            println!("seed {}, {:?}: {why}", case.seed, case.model);
        }
    }
    let mut failed = Vec::new();
    for (case, ending) in ended.into_iter().filter(|(_, ending)| ending.is_err()).take(3) {
        let why = ending.err().unwrap_or_default();
        failed.push(shrink::shrink(case, why, async |case| run(case.clone()).await.err()).await);
    }
    for (case, why) in &failed {
        println!("FAILED: {why}\n{case}");
    }
    assert!(failed.is_empty(), "{} cases failed", failed.len());
    assert!(count < 10 || held * 5 > refused, "most cases must be valid: {held} held, {refused} refused");
    assert!(count < 10 || refused > 0, "some cases must be refused");
}
