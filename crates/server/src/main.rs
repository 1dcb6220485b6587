//! The binary `tenantry`: sets up the process (TLS, file permissions, runtime) and runs the command line.

mod api;
mod cli;
mod client;
mod config;
mod demo;
mod descriptors;
mod front;
mod in_flight;
mod lock;
mod logging;
mod pace;
mod process;
mod providers;
mod serve;

use std::process::ExitCode;

use clap::Parser;

/// Requests allocate many small, short-lived values on several threads; mimalloc is built for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // rustls needs one cryptography provider per process, installed before the first TLS connection.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("error: a TLS cryptography provider is already installed");
        return ExitCode::FAILURE;
    }
    // Files that this process creates (registry, keyring, outbox, logs) are readable by their owner only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the async runtime: {error}");
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
