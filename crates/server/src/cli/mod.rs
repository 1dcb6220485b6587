//! The command line: noun, verb, options. A client of the API, except for the commands that run a server and those that
//! say that they work offline. Data goes to stdout, everything else to stderr; secrets never stand in options.

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
mod operation;
mod output;
mod plan;
mod progress;
mod repair;
mod requests;
mod stats;
mod store;
mod template;
mod tenant;

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
  0  done
  1  failed
  2  wrong usage
  3  there is no such thing
  4  conflict, or an operation needs attention
  5  the server cannot be reached
  6  an operation failed and was rolled back, or was cancelled

The API key comes from TENANTRY_KEY, from the file that TENANTRY_KEY_FILE names, or from admin.key
in the data folder; never from an option. NO_COLOR is honoured.

Begin with:
  tenantry demo
  tenantry dev";

/// From sign-up to a working, isolated, billed tenant.
#[derive(Debug, Parser)]
#[command(name = "tenantry", version, max_term_width = 100, arg_required_else_help = true, after_long_help = AFTER, after_help = AFTER)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// The server's URL [default: that of the data folder's server, or http://127.0.0.1:7780]
    #[arg(long, global = true, value_name = "URL", env = "TENANTRY_SERVER", hide_env_values = true)]
    server: Option<String>,
    /// The data folder: what `dev` and `demo` keep, and where clients find its key and address
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How data is written
    #[arg(long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
    /// Never ask anything
    #[arg(long, global = true)]
    no_input: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server on this machine, with everything in one folder
    Dev {
        /// Address and port; port 0 takes a free one
        #[arg(
            long,
            value_name = "ADDR",
            default_value = "127.0.0.1:7780",
            env = "TENANTRY_LISTEN",
            hide_env_values = true
        )]
        listen: SocketAddr,
        /// End when stdin does: for a parent that must not leave this process behind
        #[arg(long, hide = true)]
        exit_with_stdin: bool,
    },
    /// Run a server by a configuration file
    Serve {
        /// The file; `tenantry config show` prints one with all defaults
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// See it work: make tenants, look inside one, kill the server and watch it go on
    Demo(demo::Options),
    /// Tenants: create, list, get, provision
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Operations: follow them and step in
    #[command(subcommand)]
    Operation(operation::Command),
    /// Plans on offer
    #[command(subcommand)]
    Plan(plan::Command),
    /// Templates: how tenants are made
    #[command(subcommand)]
    Template(template::Command),
    /// How onboarding goes: times, failures, bottlenecks, room
    Stats(stats::Options),
    /// What of the fleet is not as it was made; exit code 1 if there is something
    Drift(drift::Options),
    /// Repair every tenant that is not as it was made, and wait until that is done
    Repair(repair::Options),
    /// Whether the server's providers can do their work; exit code 1 if one cannot
    Doctor,
    /// Whether tenants are kept apart
    #[command(subcommand)]
    Isolation(isolation::Command),
    /// Certificates of tenants' deletion: fetch them, check them
    #[command(subcommand)]
    Certificate(certificate::Command),
    /// API keys
    #[command(subcommand)]
    Key(key::Command),
    /// Events: what happened, in order
    #[command(subcommand)]
    Event(event::Command),
    /// The audit trail
    #[command(subcommand)]
    Audit(audit::Command),
    /// The registry's database: move it
    #[command(subcommand)]
    Store(store::Command),
    /// The configuration of `serve`
    #[command(subcommand)]
    Config(config::Command),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What every command may use.
pub struct Session {
    /// Writes data.
    pub output: Output,
    /// Whether nothing may be asked.
    pub no_input: bool,
    server: Option<String>,
    data: Option<PathBuf>,
}

impl Session {
    /// A client of the server that the options and the environment name.
    pub fn client(&self) -> Result<Client> {
        let folder = self.folder();
        Client::new(&client::server(self.server.as_deref(), &folder), client::key(&folder)?)
    }

    /// The data folder.
    pub fn folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| PathBuf::from("tenantry-data"))
    }

    /// Asks before something that cannot be taken back, if there is somebody to ask.
    pub fn confirm(&self, question: &str, yes: bool) -> Result<()> {
        use std::io::IsTerminal;
        if yes || self.no_input || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Ok(());
        }
        eprint!("{question} [y/N] ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim().eq_ignore_ascii_case("y") {
            Ok(())
        } else {
            Err(Exit::Failure.with("nothing was done"))
        }
    }
}

/// Runs the command.
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
        eprintln!("Tenantry is at {url}");
        eprintln!(
            "The admin key is in {}; `tenantry --data {} tenant list` uses it",
            key.display(),
            folder.display()
        );
    })
    .await
}
