//! Makes a case that fails smaller: drops files and statements as long as it fails in the same way.

use super::case::Case;

/// Attempts at most.
const ATTEMPTS: usize = 120;

/// The smallest case that was found with the same failure; `fails` says how a case fails.
pub async fn shrink(case: Case, why: String, fails: impl AsyncFn(&Case) -> Option<String>) -> (Case, String) {
    let kind = kind_of(&why).to_owned();
    let (mut best, mut best_why) = (case, why);
    let mut attempts = 0;
    loop {
        let mut smaller = None;
        for candidate in candidates(&best) {
            attempts += 1;
            if attempts > ATTEMPTS {
                return (best, best_why);
            }
            if let Some(why) = fails(&candidate).await.filter(|why| kind_of(why) == kind) {
                smaller = Some((candidate, why));
                break;
            }
        }
        match smaller {
            Some((candidate, why)) => (best, best_why) = (candidate, why),
            None => return (best, best_why),
        }
    }
}

/// The beginning of a failure's text, which names what did not hold.
fn kind_of(why: &str) -> &str {
    why.split(':').next().unwrap_or_default()
}

/// Cases without one file or one statement; the first file, which has the canary's table, stays.
fn candidates(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    for file in (1..case.files.len()).rev() {
        let mut without = case.clone();
        without.files.remove(file);
        without.later = without.later.min(without.files.len() - 1);
        all.push(without);
    }
    for (file, statements) in case.files.iter().enumerate() {
        if statements.statements.len() > 1 {
            for statement in (usize::from(file == 0)..statements.statements.len()).rev() {
                let mut without = case.clone();
                without.files[file].statements.remove(statement);
                all.push(without);
            }
        }
    }
    if case.later > 0 {
        all.push(Case { later: 0, ..case.clone() });
    }
    all
}
