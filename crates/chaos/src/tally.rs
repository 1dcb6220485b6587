//! Counts of a run: use cases by their end, faults by kind, and answers that no client should ever get.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::client::Refusal;

/// Most surprises that are kept.
const MAX_SURPRISES: usize = 50;

/// The counts.
#[derive(Default)]
pub struct Tally {
    use_cases: Mutex<BTreeMap<&'static str, BTreeMap<String, u32>>>,
    faults: Mutex<BTreeMap<String, u32>>,
    surprises: Mutex<Vec<String>>,
}

impl Tally {
    /// Counts a use case that ended.
    pub fn use_case(&self, name: &'static str, end: Result<(), Refusal>) {
        let end = end.err().map_or_else(|| "done".to_owned(), |refusal| refusal.code);
        *self.use_cases.lock().entry(name).or_default().entry(end).or_default() += 1;
    }

    /// Counts a fault.
    pub fn fault(&self, what: &str) {
        *self.faults.lock().entry(what.to_owned()).or_default() += 1;
    }

    /// Keeps something that must not happen.
    pub fn surprise(&self, what: String) {
        let mut surprises = self.surprises.lock();
        if surprises.len() < MAX_SURPRISES {
            surprises.push(what);
        }
    }

    /// What must not have happened.
    pub fn surprises(&self) -> Vec<String> {
        self.surprises.lock().clone()
    }

    /// Prints the counts.
    pub fn print(&self) {
        println!("\nInjected");
        for (what, count) in &*self.faults.lock() {
            println!("  {count:6}  {what}");
        }
        println!("\nUse cases");
        for (name, ends) in &*self.use_cases.lock() {
            let ends: Vec<String> = ends.iter().map(|(end, count)| format!("{end} {count}")).collect();
            println!("  {name:24} {}", ends.join(", "));
        }
    }
}
