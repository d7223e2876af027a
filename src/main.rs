//! Arguments, configuration, log, then the command.
//!
//! What the process forgets is gone from its memory: freed memory is wiped, and a crash leaves no image of the rest.

use std::alloc::System;
use std::process::ExitCode;
use std::time::Duration;

use blind_relay::cli::{Cli, Command};
use blind_relay::config::{self, Config};
use blind_relay::{audit, backup, console, doctor, server, telemetry};
use clap::Parser;
use rustix::process::{Resource, Rlimit, setrlimit};
use zeroizing_alloc::ZeroAlloc;

/// Overwrites whatever is freed, also by dependencies that know no secrets (ADR 0028).
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    if let Err(error) = leave_no_core() {
        eprintln!("blind-relay: a crash may leave a core file: {error}");
    }
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
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime
        .enable_all()
        .on_thread_park(wipe_stack)
        .on_thread_stop(wipe_stack)
        .thread_keep_alive(BLOCKING_IDLE);
    let runtime = match runtime.build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("blind-relay: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let done = match command {
            Command::Serve => server::run_until_signal(config).await,
            Command::Migrate { step } => server::migrate(&config, step).await,
            Command::Keys { step } => server::keys(&config, step).await,
            Command::Backup { file, quiet } => backup::make(&config, &file, quiet).await,
            Command::Restore { file, in_place: _ } => backup::restore(&config, file.as_deref()).await,
            Command::Doctor => doctor::run(&config).await,
            Command::Config => Ok(()),
            Command::Admin(args) => return console::run(&config, args).await,
            // Its exit status says more than whether it failed.
            Command::Audit { step } => return Ok(audit::run(&config, step).await),
        };
        done.map(|()| ExitCode::SUCCESS)
    });
    // Not waiting for blocking work that was cut: the drain time is over by now.
    runtime.shutdown_background();
    match result {
        Ok(status) => status,
        Err(error) => {
            let error: anyhow::Error = error;
            eprintln!("blind-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Overwrites what earlier calls left on the stack of a thread that goes to sleep: a password, say, that was hashed there.
#[inline(never)]
fn wipe_stack() {
    std::hint::black_box(&mut [0_u8; STACK_IN_USE]);
}

/// How long a thread for blocking work waits for more. It wipes its stack when it ends.
const BLOCKING_IDLE: Duration = Duration::from_secs(2);
/// Requests are answered in less.
const STACK_IN_USE: usize = 256 * 1024;

/// Has the kernel write no core file of this process, and hand none to a program either. The limit is one byte: none at
/// all would stop files, but not pipes (core(5)), and of less than a page Linux makes neither.
fn leave_no_core() -> rustix::io::Result<()> {
    let one_byte = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    setrlimit(Resource::Core, one_byte)
}
