//! `tenantry plan`: shows the plans on offer.

use anyhow::Result;
use clap::Subcommand;

use super::Session;
use super::output::Column;
use crate::client::path_segment;

const COLUMNS: [Column; 6] = [
    ("NAME", "/name"),
    ("TITLE", "/title"),
    ("TEMPLATE", "/template"),
    ("MONTH", "/price_per_month"),
    ("YEAR", "/price_per_year"),
    ("CURRENCY", "/currency"),
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List plans; prices are in the currency's smallest unit
    List,
    /// Show a plan
    Get {
        /// Plan name or alias
        plan: String,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = session.client()?;
    match command {
        Command::List => session.output.list(&client.all("/v1/plans").await?, &COLUMNS),
        Command::Get { plan } => {
            session.output.one(&client.get(&format!("/v1/plans/{}", path_segment(&plan))).await?)
        }
    }
}
