//! CPU time and memory of a process, read from /proc on Linux.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Length of a tick in /proc, in milliseconds: USER_HZ is 100 on every Linux (proc(5)).
const TICK_MS: u64 = 10;

/// Positions of fields in /proc/PID/stat after the name, which may contain any character, and its bracket.
const PARENT: usize = 1;
const USER: usize = 11;
const SYSTEM: usize = 12;
const WAITED_USER: usize = 13;
const WAITED_SYSTEM: usize = 14;

/// CPU time of a process so far.
pub fn cpu(pid: u32) -> Result<Duration> {
    let fields = stat(pid).with_context(|| format!("process {pid} is gone"))?;
    Ok(ticks(&fields, &[USER, SYSTEM]))
}

/// CPU time of a process and of all its children, ended ones included, for a PostgreSQL server.
pub fn cpu_of_family(pid: u32) -> Result<Duration> {
    let parent = stat(pid).with_context(|| format!("process {pid} is gone"))?;
    let mut sum = ticks(&parent, &[USER, SYSTEM, WAITED_USER, WAITED_SYSTEM]);
    for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(fields) = number.and_then(stat)
            && fields.get(PARENT) == Some(&u64::from(pid))
        {
            sum += ticks(&fields, &[USER, SYSTEM]);
        }
    }
    Ok(sum)
}

/// The parent of a process.
pub fn parent(pid: u32) -> Result<u32> {
    let fields = stat(pid).with_context(|| format!("process {pid} is gone"))?;
    Ok(u32::try_from(fields[PARENT])?)
}

/// Resident memory of a process in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

/// The fields after the name; a field that is not a number counts as 0.
fn stat(pid: u32) -> Option<Vec<u64>> {
    fields(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn fields(text: &str) -> Option<Vec<u64>> {
    let fields: Vec<u64> =
        text.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    (fields.len() > WAITED_SYSTEM).then_some(fields)
}

fn ticks(fields: &[u64], which: &[usize]) -> Duration {
    Duration::from_millis(which.iter().map(|i| fields[*i]).sum::<u64>() * TICK_MS)
}

#[cfg(test)]
mod tests {
    use super::{PARENT, SYSTEM, USER, fields};

    #[test]
    fn reads_fields_after_a_name_with_brackets() {
        let text = "42 (a) b (c)) S 7 42 42 0 -1 4194304 100 0 0 0 15 16 17 18 20 0 1 0 5";
        let fields = fields(text).unwrap_or_default();
        assert_eq!((fields[PARENT], fields[USER], fields[SYSTEM]), (7, 15, 16));
    }
}
