//! Reads the output of `cargo test` and adds up the results of all test binaries and doc tests. It also
//! counts test processes that died before they printed a result.

/// Sums over every test binary of one `cargo test` run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed, among them those that skipped themselves.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Ignored tests.
    pub ignored: u64,
    /// Test processes that started and printed no result.
    pub died: u64,
    /// Names of failed tests, in the order in which they ended.
    pub failures: Vec<String>,
    running: bool,
}

impl Tally {
    /// Reads one line of standard output.
    pub fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.running = false;
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.ignored += count(counts, "ignored");
        } else if is_start(line) {
            self.close();
            self.running = true;
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    /// Ends the output: a process without a result has died.
    pub fn close(&mut self) {
        self.died += u64::from(std::mem::take(&mut self.running));
    }

    /// Number of tests and processes that ran, failed ones included.
    pub fn ran(&self) -> u64 {
        self.passed + self.failed + self.died
    }
}

/// `running 3 tests` or `running 1 test`.
fn is_start(line: &str) -> bool {
    line.strip_prefix("running ")
        .and_then(|rest| rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test")))
        .is_some_and(|number| number.parse::<u64>().is_ok())
}

/// The number before `word` in `ok. 3 passed; 0 failed; 1 ignored; …`.
fn count(counts: &str, word: &str) -> u64 {
    counts
        .split(['.', ';'])
        .filter_map(|part| part.trim().split_once(' '))
        .find(|(_, name)| *name == word)
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Tally;

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally.close();
        tally
    }

    #[test]
    fn sums_all_binaries_and_doc_tests() {
        let got = tally(
            "\nrunning 2 tests\ntest a ... ok\ntest b ... ignored\n\n\
             test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\n\
             running 3 tests\ntest c ... ok\ntest d ... FAILED\ntest e ... ok\n\nfailures:\n    d\n\n\
             test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.20s\n\n\
             running 1 test\ntest crates/x/src/lib.rs - f (line 3) ... ok\n\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\n\
             all doctests ran in 0.22s; merged doctests compilation took 0.21s\n",
        );
        assert_eq!((got.passed, got.failed, got.ignored, got.died), (4, 1, 1, 0));
        assert_eq!(got.failures, ["d"]);
    }

    #[test]
    fn counts_a_process_that_died_before_its_result() {
        let result = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let first = tally(&format!("running 2 tests\ntest a ... ok\nrunning 1 test\n{result}"));
        assert_eq!((first.passed, first.died), (1, 1));
        let last = tally(&format!("running 1 test\n{result}running 2 tests\ntest a ... ok\n"));
        assert_eq!((last.passed, last.died), (1, 1));
        assert_eq!(last.ran(), 2);
    }

    #[test]
    fn ignores_similar_lines() {
        assert_eq!(tally("running late\ntest bench ... ok\nresult: 3 passed\n"), Tally::default());
    }
}
