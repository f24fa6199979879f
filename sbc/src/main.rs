//! `sbc`: the command line.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![expect(clippy::print_stdout, reason = "a command's answer goes to its user")]

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sbc::config::{Database, Settings};
use sbc::policy::drafts;
use sbc::records::read as records;
use sbc::{app, config, doctor, store};

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
    /// Bring the database's schema up to date, as its owner.
    Migrate {
        /// The connection of the schema's owner: a URL, `$NAME` of the environment or `@/path` of a file. Without it `database.url`.
        #[arg(long, env = "SBC_OWNER_URL", hide_env_values = true)]
        owner: Option<String>,
    },
    /// Say what on this machine would hurt.
    Doctor,
    /// Edit policy in drafts, and bring them into force.
    Policy {
        /// An operator's connection: a URL, `$NAME` of the environment or `@/path` of a file. Without it `database.url`.
        #[arg(long, env = "SBC_OPERATOR_URL", hide_env_values = true)]
        database: Option<String>,
        /// Who does it, for the history: without it who is logged in here.
        #[arg(long, env = "SBC_ACTOR")]
        actor: Option<String>,
        #[command(subcommand)]
        command: drafts::Command,
    },
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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match &arguments.command {
        Command::Migrate { owner } => {
            let url = match owner {
                Some(owner) => config::database::url(owner).map_err(|error| format!("--owner: {error}"))?,
                None => Database::load(&arguments.config)?.url()?,
            };
            runtime.block_on(migrate(&url))?;
            println!("the schema is up to date");
            return Ok(ExitCode::SUCCESS);
        }
        Command::Policy { database, actor, command } => {
            let url = match database {
                Some(database) => {
                    config::database::url(database).map_err(|error| format!("--database: {error}"))?
                }
                None => Database::load(&arguments.config)?.url()?,
            };
            let login = ["SUDO_USER", "USER"].iter().find_map(|name| std::env::var(name).ok());
            let realms = config::database::realm_names(&arguments.config).ok();
            let desk = drafts::Desk { actor: actor.clone().or(login), realms };
            print!("{}", runtime.block_on(desk.run(command, &url))?);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Records { call, count } => {
            print!("{}", runtime.block_on(read_records(&Database::load(&arguments.config)?, *call, *count))?);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Serve | Command::Check | Command::Doctor | Command::Version => {}
    }
    let settings = Settings::load(&arguments.config)?;
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
            app::raise_file_limit();
            for finding in doctor::examine(&settings).into_iter().filter(|finding| finding.is_serious) {
                tracing::warn!("{}", finding.text);
            }
            runtime.block_on(app::run(settings, &arguments.config))?;
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
        Command::Migrate { .. } | Command::Policy { .. } | Command::Records { .. } | Command::Version => {
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn migrate(url: &str) -> Result<(), String> {
    let pool = store::pool(url, 2)?;
    if let Err(error) = pool.acquire().await {
        return Err(format!("the database: {}", store::trouble::diagnose(&pool, &error).await));
    }
    let done = store::MIGRATIONS.run(&pool).await;
    done.map_err(|error| {
        format!("{error}; the schema is changed by its owner alone: name him by --owner or SBC_OWNER_URL")
    })
}

async fn read_records(database: &Database, call: Option<uuid::Uuid>, count: u32) -> Result<String, String> {
    let pool = store::pool(&database.url()?, 2)?;
    let read = match call {
        Some(id) => records::one(&pool, id).await,
        None => records::latest(&pool, count).await.map(Some),
    };
    match (read, call) {
        (Ok(Some(text)), _) => Ok(text),
        (Ok(None), call) => Err(format!(
            "the database has no call {}; without an id the latest are shown, with theirs (a new one is there within a second)",
            call.unwrap_or_default()
        )),
        (Err(error), _) => {
            Err(format!("the records can't be read: {}", store::trouble::diagnose(&pool, &error).await))
        }
    }
}
