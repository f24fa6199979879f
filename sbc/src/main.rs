//! `sbc`: the command line.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![expect(clippy::print_stdout, reason = "a command's answer goes to its user")]

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sbc::config::Settings;
use sbc::{doctor, records, serve, store};

/// A session border controller.
#[derive(Debug, Parser)]
#[command(name = "sbc", version, about)]
struct Arguments {
    /// The configuration file.
    #[arg(short, long, env = "SBC_CONFIG", default_value = "/etc/crush-sbc/sbc.toml", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM.
    Serve,
    /// Read the configuration and say whether it is right.
    Check,
    /// Bring the database's schema up to date.
    Migrate,
    /// Say what on this machine would hurt.
    Doctor,
    /// Show the latest calls, or what happened in one.
    Records {
        /// The id of a call.
        call: Option<uuid::Uuid>,
        /// How many.
        #[arg(short = 'n', long, default_value_t = 10)]
        count: u32,
    },
    /// Say which version this is.
    Version,
}

/// What is logged unless SBC_LOG says otherwise. rustls warns of each TLS client that was given an address for a name, as most phones are.
const LOG: &str = "info,rustls=error";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sbc: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if matches!(arguments.command, Command::Version) {
        println!("sbc {}", env!("CARGO_PKG_VERSION"));
        return Ok(ExitCode::SUCCESS);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Settings::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.command {
        Command::Serve => {
            let filter =
                tracing_subscriber::EnvFilter::try_from_env("SBC_LOG").unwrap_or_else(|_| LOG.into());
            let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let builder = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_ansi(is_coloured)
                .with_writer(std::io::stderr);
            if std::env::var_os("SBC_LOG_JSON").is_some() {
                builder.json().init()
            } else {
                builder.init()
            }
            vitals::tell_panics();
            serve::raise_file_limit();
            for finding in doctor::examine(&settings).into_iter().filter(|finding| finding.is_serious) {
                tracing::warn!("{}", finding.text);
            }
            runtime.block_on(serve::run(settings, &arguments.config))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check => {
            settings.database_url()?;
            let config = &settings.plane.engine;
            println!(
                "{}: {} realms, {} listeners: right",
                arguments.config.display(),
                config.realms.len(),
                config.listeners.len()
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Migrate => {
            runtime.block_on(async {
                let pool = store::pool(&settings.database_url()?, 2)?;
                if let Err(error) = pool.acquire().await {
                    return Err(format!("the database: {}", store::complaint(&pool, &error).await));
                }
                store::MIGRATIONS
                    .run(&pool)
                    .await
                    .map_err(|error| format!("{error}; may the user of database.url create tables?"))
            })?;
            println!("the schema is up to date");
            Ok(ExitCode::SUCCESS)
        }
        Command::Records { call, count } => {
            let text = runtime.block_on(async {
                let pool = store::pool(&settings.database_url()?, 2)?;
                let read = match call {
                    Some(id) => records::one(&pool, id).await,
                    None => records::latest(&pool, count).await,
                };
                match read {
                    Ok(text) => Ok(text),
                    Err(error) => {
                        Err(format!("the records can't be read: {}", store::complaint(&pool, &error).await))
                    }
                }
            })?;
            print!("{text}");
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor => {
            let mut findings = doctor::examine(&settings);
            findings.extend(runtime.block_on(doctor::examine_database(&settings)));
            for finding in &findings {
                println!("{} {}", if finding.is_serious { "serious:" } else { "note:   " }, finding.text);
            }
            if findings.is_empty() {
                println!("nothing on this machine would hurt");
            }
            Ok(if findings.iter().any(|finding| finding.is_serious) {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
        Command::Version => Ok(ExitCode::SUCCESS),
    }
}
