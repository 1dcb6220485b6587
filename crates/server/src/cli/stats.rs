//! `tenantry stats`: prints statistics of onboarding as tables.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tenantry_control::stats::{CapacityStats, Lengths, PlanStats, StatsView, TemplateStats};

use super::output::Column;
use super::progress::length;
use super::{Format, Session};
use crate::client::path_segment;

const PLANS: [Column; 9] = [
    ("PLAN", "/plan"),
    ("ONBOARDINGS", "/onboardings"),
    ("SUCCEEDED", "/success_rate"),
    ("ROLLED BACK", "/rolled_back"),
    ("CANCELLED", "/cancelled"),
    ("NEED ATTENTION", "/needs_attention"),
    ("MEAN", "/mean"),
    ("P50", "/p50"),
    ("P95", "/p95"),
];
const STEPS: [Column; 11] = [
    ("TEMPLATE", "/template"),
    ("STEP", "/step"),
    ("MEAN", "/mean"),
    ("P50", "/p50"),
    ("P95", "/p95"),
    ("ATTEMPTS", "/attempts"),
    ("WAITED", "/waited"),
    ("HELD UP BY", "/held_up_by"),
    ("CRITICAL", "/critical"),
    ("FAILURES", "/failures"),
    ("CAUSES", "/causes"),
];
const CAPACITY: [Column; 6] = [
    ("REGION", "/region"),
    ("KIND", "/kind"),
    ("CAPACITY", "/capacity"),
    ("USED", "/used"),
    ("RESERVED", "/reserved"),
    ("UTILISATION", "/utilisation_percent"),
];

#[derive(Debug, Args)]
pub struct Options {
    /// Onboardings that started after this time, or within this period, such as 30d
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    since: String,
}

pub async fn run(options: Options, session: &Session) -> Result<()> {
    let answer = session.client()?.get(&format!("/v1/stats?since={}", path_segment(&options.since))).await?;
    let output = &session.output;
    if output.format != Format::Table {
        return output.value(&answer);
    }
    let stats: StatsView = serde_json::from_value(answer)?;
    eprintln!("{} onboardings since {}", stats.onboardings, stats.since);
    if !stats.complete {
        eprintln!("Only the newest onboardings are included");
    }
    output.list(&plans(&stats), &PLANS)?;
    output.text("")?;
    output.list(&steps(&stats), &STEPS)?;
    if !stats.capacity.is_empty() {
        output.text("")?;
        output.list(&capacity(&stats), &CAPACITY)?;
    }
    Ok(())
}

fn plans(stats: &StatsView) -> Vec<Value> {
    let row = |plan: &PlanStats| {
        let mut row = json!(plan);
        row["success_rate"] = json!(format!("{} ({})", plan.succeeded, percent(plan.success_rate)));
        with_lengths(row, plan.duration)
    };
    stats.plans.iter().map(row).collect()
}

fn steps(stats: &StatsView) -> Vec<Value> {
    let of_template = |template: &TemplateStats| {
        let rows = template.steps.iter().map(|step| {
            let causes = step.causes.iter().map(|cause| format!("{} {}", cause.count, cause.code));
            let row = json!({
                "template": template.template,
                "step": step.step,
                "attempts": step.mean_attempts,
                "waited": step.mean_waited_ms.map(millis),
                "held_up_by": step.held_up_by,
                "critical": step.critical_share.map(percent),
                "failures": step.failures,
                "causes": (step.failures > 0).then(|| causes.collect::<Vec<_>>().join(", ")),
            });
            with_lengths(row, step.duration)
        });
        rows.collect::<Vec<_>>()
    };
    stats.templates.iter().flat_map(of_template).collect()
}

fn capacity(stats: &StatsView) -> Vec<Value> {
    let row = |capacity: &CapacityStats| {
        let mut row = json!(capacity);
        row["utilisation_percent"] = json!(percent(capacity.utilisation));
        row
    };
    stats.capacity.iter().map(row).collect()
}

fn with_lengths(mut row: Value, lengths: Option<Lengths>) -> Value {
    if let Some(Lengths { mean_ms, p50_ms, p95_ms }) = lengths {
        for (name, ms) in [("mean", mean_ms), ("p50", p50_ms), ("p95", p95_ms)] {
            row[name] = json!(millis(ms));
        }
    }
    row
}

fn millis(ms: f64) -> String {
    length(Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or_default())
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
