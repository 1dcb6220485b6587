//! The binary `tenantry`: from here everything is wired and nothing is decided.

mod api;
mod cli;
mod client;
mod config;
mod demo;
mod front;
mod lock;
mod logging;
mod process;
mod providers;
mod serve;

use std::process::ExitCode;

use clap::Parser;

/// Rows, statements and documents are many small, short-lived pieces on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything speaks TLS: one provider of cryptography in this process.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("error: another provider of cryptography is installed");
        return ExitCode::FAILURE;
    }
    // Registry, keyring, outbox and logs are for their owner alone, whatever library makes the file.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            eprintln!("error: the runtime does not start: {why}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(cli::Exit::of(&error) as u8)
        }
    }
}
