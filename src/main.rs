//! Arguments, configuration, log, then the command.

use std::process::ExitCode;

use blind_relay::cli::{Cli, Command};
use blind_relay::config::{self, Config};
use blind_relay::{doctor, server, telemetry};
use clap::Parser;

fn main() -> ExitCode {
    let (command, sources) = Cli::parse().into_sources(std::env::vars_os());
    let settings = config::load(sources);
    if matches!(command, Command::Config) {
        server::say(&config::show(&settings));
    }
    let config = match Config::from_settings(settings) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("blind-relay: {error}");
            return ExitCode::from(2);
        }
    };
    telemetry::logging::install(config.log, &config.log_level);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("blind-relay: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match command {
            Command::Serve => server::run_until_signal(config).await,
            Command::Migrate { step } => server::migrate(&config, step).await,
            Command::Keys { step } => server::keys(&config, step),
            Command::Doctor => doctor::run(&config).await,
            Command::Config => Ok(()),
        }
    });
    // Not waiting for blocking work that was cut: the drain time is over by now.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("blind-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}
