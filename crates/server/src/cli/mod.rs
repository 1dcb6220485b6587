//! The command line: noun, verb, options. Most commands are clients of the API; the others run a server or
//! work offline, and say so. Data goes to stdout, everything else to stderr. Secrets are never passed as
//! options.

mod audit;
mod certificate;
mod clone;
mod config;
mod doctor;
mod drift;
mod event;
mod exit;
mod export;
mod isolation;
mod key;
mod member;
mod operation;
mod output;
mod plan;
mod progress;
mod repair;
mod requests;
mod session;
mod stats;
mod store;
mod template;
mod tenant;
mod yaml;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::client::{self, Client};
use crate::config::Config;
use crate::{demo, logging, process};

pub use exit::Exit;
pub use output::{Format, Output};
pub use progress::{Board, length};
pub use requests::{Entry, read_entries};
pub use tenant::ended;

const AFTER: &str = "\
Exit codes:
  0  success
  1  failure
  2  wrong usage
  3  not found
  4  conflict, or an operation needs attention
  5  the server does not respond
  6  an operation was rolled back or cancelled

The API key is read from TENANTRY_KEY, from the file named by TENANTRY_KEY_FILE, or from admin.key
in the data folder; never from an option. Set NO_COLOR to disable colours.

Start with:
  tenantry demo
  tenantry dev";

/// Onboard, operate and offboard the tenants of a multi-tenant service.
#[derive(Debug, Parser)]
#[command(name = "tenantry", version, max_term_width = 100, arg_required_else_help = true, after_long_help = AFTER, after_help = AFTER)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Server URL [default: the data folder's server, else http://127.0.0.1:7780]
    #[arg(long, global = true, value_name = "URL", env = "TENANTRY_SERVER", hide_env_values = true)]
    server: Option<String>,
    /// Data folder of `dev` and `demo`; clients read its admin key and server URL
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Output format
    #[arg(long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
    /// Never prompt; what needs a confirmation then needs `--yes`
    #[arg(long, global = true)]
    no_input: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a development server with all its data in one folder
    Dev {
        /// Address and port; port 0 picks a free one
        #[arg(
            long,
            value_name = "ADDR",
            default_value = "127.0.0.1:7780",
            env = "TENANTRY_LISTEN",
            hide_env_values = true
        )]
        listen: SocketAddr,
        /// Exit when stdin closes, so that a parent process cannot leave this one behind
        #[arg(long, hide = true)]
        exit_with_stdin: bool,
    },
    /// Run a server with a configuration file
    Serve {
        /// Configuration file; `tenantry config show --defaults` prints one
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show the product: onboard tenants, inspect one, and kill and restart the server meanwhile
    Demo(demo::Options),
    /// Manage tenants: create, inspect, repair, export, suspend, offboard
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Invite members of a tenant
    #[command(subcommand)]
    Member(member::Command),
    /// List and end sessions of tenants' members
    #[command(subcommand)]
    Session(session::Command),
    /// Follow and control operations
    #[command(subcommand)]
    Operation(operation::Command),
    /// Show plans
    #[command(subcommand)]
    Plan(plan::Command),
    /// Show, compare and validate templates
    #[command(subcommand)]
    Template(template::Command),
    /// Show statistics of onboarding: durations, failures, bottlenecks, capacity
    Stats(stats::Options),
    /// List tenants that differ from the plan of their onboarding; exit code 1 if there are any
    Drift(drift::Options),
    /// Repair every tenant that differs from the plan of its onboarding, and wait
    Repair(repair::Options),
    /// Check the health of the server's providers; exit code 1 if one is unhealthy
    Doctor,
    /// Check the isolation between tenants
    #[command(subcommand)]
    Isolation(isolation::Command),
    /// Fetch and verify deletion certificates
    #[command(subcommand)]
    Certificate(certificate::Command),
    /// Manage API keys
    #[command(subcommand)]
    Key(key::Command),
    /// List and stream events
    #[command(subcommand)]
    Event(event::Command),
    /// Verify the audit trail
    #[command(subcommand)]
    Audit(audit::Command),
    /// Move the registry's database
    #[command(subcommand)]
    Store(store::Command),
    /// Validate and print the configuration of `serve`
    #[command(subcommand)]
    Config(config::Command),
    /// Print a completion script for a shell
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
}

/// The global options, for commands.
pub struct Session {
    /// Writes data to stdout.
    pub output: Output,
    /// Whether prompts are disabled.
    pub no_input: bool,
    server: Option<String>,
    data: Option<PathBuf>,
}

impl Session {
    /// A client for the server and API key of the options and the environment.
    pub fn client(&self) -> Result<Client> {
        let folder = self.folder();
        Client::new(&client::server(self.server.as_deref(), &folder), client::key(&folder)?)
    }

    /// The data folder.
    pub fn folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| PathBuf::from("tenantry-data"))
    }

    /// Asks for confirmation of an irreversible action. Without a terminal to ask, or with prompts disabled, only `--yes`
    /// confirms.
    pub fn confirm(&self, question: &str, yes: bool) -> Result<()> {
        use std::io::IsTerminal;
        if yes {
            return Ok(());
        }
        if self.no_input || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            let why = format!("{question} Nothing was changed: without a terminal to ask, add `--yes`");
            return Err(Exit::Usage.with(why));
        }
        eprint!("{question} [y/N] ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim().eq_ignore_ascii_case("y") {
            Ok(())
        } else {
            Err(Exit::Failure.with("cancelled: nothing was changed"))
        }
    }
}

/// Runs a command.
pub async fn run(cli: Cli) -> Result<()> {
    let Global { server, data, output, no_input } = cli.global;
    let session = Session { output: Output::new(output), no_input, server, data };
    match cli.command {
        Command::Dev { listen, exit_with_stdin } => dev(&session, listen, exit_with_stdin).await,
        Command::Serve { config } => {
            let config = Config::load(config.as_deref()).map_err(|faults| Exit::Usage.with(faults))?;
            logging::init(&config.log)?;
            process::run(config, |_| {}).await
        }
        Command::Demo(options) => demo::run(options, session.data.clone(), &session.output).await,
        Command::Tenant(command) => tenant::run(command, &session).await,
        Command::Member(command) => member::run(command, &session).await,
        Command::Session(command) => session::run(command, &session).await,
        Command::Operation(command) => operation::run(command, &session).await,
        Command::Plan(command) => plan::run(command, &session).await,
        Command::Template(command) => template::run(command, &session).await,
        Command::Stats(options) => stats::run(options, &session).await,
        Command::Drift(options) => drift::run(options, &session).await,
        Command::Repair(options) => repair::run(options, &session).await,
        Command::Doctor => doctor::run(&session).await,
        Command::Isolation(command) => isolation::run(command, &session).await,
        Command::Certificate(command) => certificate::run(command, &session).await,
        Command::Key(command) => key::run(command, &session).await,
        Command::Event(command) => event::run(command, &session).await,
        Command::Audit(command) => audit::run(command, &session).await,
        Command::Store(command) => store::run(command, &session).await,
        Command::Config(command) => config::run(command, &session),
        Command::Completions { shell } => {
            let mut command = <Cli as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "tenantry", &mut std::io::stdout());
            Ok(())
        }
    }
}

async fn dev(session: &Session, listen: SocketAddr, exit_with_stdin: bool) -> Result<()> {
    let folder = session.folder();
    let config = Config::dev(&folder, listen).map_err(|faults| Exit::Usage.with(faults))?;
    logging::init(&config.log)?;
    if exit_with_stdin {
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(1);
        });
    }
    let key = config.admin_key();
    process::run(config, |url| {
        eprintln!("Tenantry listens on {url}");
        eprintln!(
            "The admin key is in {}; try `tenantry --data {} tenant list`",
            key.display(),
            folder.display()
        );
    })
    .await
}
