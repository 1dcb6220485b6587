//! What is printed: one line per figure, with what it stands against and a verdict.

use std::time::Duration;

use crate::process;
use crate::statistics::Spread;

/// A heading.
pub fn section(text: &str) {
    println!("\n{text}");
}

/// A figure with whatever there is to say of it.
pub fn line(what: &str, figure: &str, remark: &str) {
    println!("  {what:<44} {figure:>28}   {remark}");
}

/// A part that was left out, and why.
pub fn skipped(what: &str, why: &str) {
    line(what, "skipped", why);
}

/// What a section said beside its figures.
pub fn note(text: &str) {
    println!("  {text}");
}

/// `1,234/s (1,200..1,250)`
pub fn per_second(runs: &Spread) -> String {
    format!("{}/s ({}..{})", whole(runs.median), whole(runs.min), whole(runs.max))
}

/// `4.56 ms`
pub fn milliseconds(value: f64) -> String {
    format!("{value:.2} ms")
}

/// Whether a figure that should be at least this much is.
pub fn at_least(figure: f64, aim: f64, unit: &str) -> String {
    format!("aim >= {}{unit}: {}", short(aim), verdict(figure >= aim))
}

/// Whether a figure that should be at most this much is.
pub fn at_most(figure: f64, aim: f64, unit: &str) -> String {
    format!("aim <= {}{unit}: {}", short(aim), verdict(figure <= aim))
}

fn verdict(met: bool) -> &'static str {
    if met { "ok" } else { "below" }
}

/// With no more decimals than it needs.
fn short(value: f64) -> String {
    if value.fract() == 0.0 { whole(value) } else { format!("{value}") }
}

/// Rounded, with commas.
pub fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// CPU time of everybody who shares the machine, up to now.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    client: Duration,
    server: Duration,
    postgres: Duration,
}

impl Cpu {
    /// Of us, of a server and of a PostgreSQL, where there are such.
    pub fn now(server: Option<u32>, postgres: Option<u32>) -> Self {
        // A process that has just ended counts as nothing: this is a remark, not a figure.
        Self {
            client: process::cpu(std::process::id()).unwrap_or_default(),
            server: server.and_then(|pid| process::cpu(pid).ok()).unwrap_or_default(),
            postgres: postgres.and_then(|pid| process::cpu_of_family(pid).ok()).unwrap_or_default(),
        }
    }

    /// What was used since an earlier moment.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            client: self.client.saturating_sub(earlier.client),
            server: self.server.saturating_sub(earlier.server),
            postgres: self.postgres.saturating_sub(earlier.postgres),
        }
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            client: self.client + other.client,
            server: self.server + other.server,
            postgres: self.postgres + other.postgres,
        }
    }

    /// Per unit of `count`, of those who used any.
    pub fn each(self, count: usize) -> String {
        let parts = [("client", self.client), ("server", self.server), ("PostgreSQL", self.postgres)];
        let parts = parts.iter().filter(|(_, time)| !time.is_zero());
        let parts: Vec<String> = parts
            .map(|(who, time)| format!("{who} {:.2} ms", time.as_secs_f64() * 1e3 / count.max(1) as f64))
            .collect();
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::{at_least, at_most, whole};

    #[test]
    fn groups_digits() {
        assert_eq!([0.0, 999.0, 1000.0, 1234567.4].map(whole), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn says_whether_an_aim_is_met() {
        assert_eq!(at_least(1000.0, 1000.0, "/s"), "aim >= 1,000/s: ok");
        assert_eq!(at_most(1.21, 1.2, ""), "aim <= 1.2: below");
    }
}
