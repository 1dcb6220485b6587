//! Prints figures: one line each, with its comparison and whether it meets its aim.

use std::time::Duration;

use crate::process;
use crate::statistics::Spread;

/// A heading.
pub fn section(text: &str) {
    println!("\n{text}");
}

/// A figure with a remark.
pub fn line(what: &str, figure: &str, remark: &str) {
    println!("  {what:<44} {figure:>28}   {remark}");
}

/// A skipped part, and why.
pub fn skipped(what: &str, why: &str) {
    line(what, "skipped", why);
}

/// A remark of a section.
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

/// Whether a figure reaches its lower aim.
pub fn at_least(figure: f64, aim: f64, unit: &str) -> String {
    format!("aim >= {}{unit}: {}", short(aim), verdict(figure >= aim))
}

/// Whether a figure stays within its upper aim.
pub fn at_most(figure: f64, aim: f64, unit: &str) -> String {
    format!("aim <= {}{unit}: {}", short(aim), verdict(figure <= aim))
}

fn verdict(met: bool) -> &'static str {
    if met { "ok" } else { "missed" }
}

/// With as few decimals as possible.
fn short(value: f64) -> String {
    if value.fract() == 0.0 { whole(value) } else { format!("{value}") }
}

/// Rounded, with thousands separators.
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

/// CPU time of client, server and PostgreSQL so far.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    client: Duration,
    server: Duration,
    postgres: Duration,
}

impl Cpu {
    /// Of this process, and of a server and a PostgreSQL if given.
    pub fn now(server: Option<u32>, postgres: Option<u32>) -> Self {
        // An ended process counts as zero, because this is only a remark.
        Self {
            client: process::cpu(std::process::id()).unwrap_or_default(),
            server: server.and_then(|pid| process::cpu(pid).ok()).unwrap_or_default(),
            postgres: postgres.and_then(|pid| process::cpu_of_family(pid).ok()).unwrap_or_default(),
        }
    }

    /// CPU time since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            client: self.client.saturating_sub(earlier.client),
            server: self.server.saturating_sub(earlier.server),
            postgres: self.postgres.saturating_sub(earlier.postgres),
        }
    }

    /// The sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            client: self.client + other.client,
            server: self.server + other.server,
            postgres: self.postgres + other.postgres,
        }
    }

    /// CPU time per unit of `count`, without zeros.
    pub fn each(self, count: usize) -> String {
        let parts = [("client", self.client), ("server", self.server), ("PostgreSQL", self.postgres)];
        let parts = parts.iter().filter(|(_, time)| !time.is_zero());
        let parts: Vec<String> = parts
            .map(|(process, time)| {
                format!("{process} {:.2} ms", time.as_secs_f64() * 1e3 / count.max(1) as f64)
            })
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
    fn shows_whether_an_aim_is_met() {
        assert_eq!(at_least(1000.0, 1000.0, "/s"), "aim >= 1,000/s: ok");
        assert_eq!(at_most(1.21, 1.2, ""), "aim <= 1.2: missed");
    }
}
