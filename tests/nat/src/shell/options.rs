//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use nat_lab::{Behaviour, FlowLimit, Impairment, Kind, Lifetime, Penalty, Ports};

/// A NAT for the UDP of unmodified hosts, run in a router's network namespace.
///
/// It needs root, `ip` and `nft`. The hosts' default gateway is the namespace; everything else it sets up itself.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Option<Run>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give a command to a running NAT; `help` lists them.
    Tell {
        /// Its control socket.
        control: PathBuf,
        /// The command and its arguments.
        words: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[arg(long, help = Kind::ALL.map(Kind::name).join(", "))]
    kind: Kind,
    /// The router's address on the public side.
    #[arg(long, required = true)]
    pub(crate) external: Vec<IpAddr>,
    /// A network behind it (IPv6 networks are protected, not translated).
    #[arg(long, required = true)]
    pub(crate) inside: Vec<IpNet>,
    /// The device towards the hosts.
    #[arg(long, default_value = "lan")]
    pub(crate) lan: String,
    /// The device towards the public network.
    #[arg(long, default_value = "wan")]
    pub(crate) wan: String,
    /// The TUN device that is made.
    #[arg(long, default_value = "nat0")]
    pub(crate) device: String,
    /// A Unix socket for commands.
    #[arg(long)]
    pub(crate) control: Option<PathBuf>,
    /// What ports, losses and jitter follow from.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Time-out of mappings (120s; 30s and 120s for Linux's kinds).
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
    /// Let only what goes out keep a mapping alive.
    #[arg(long)]
    refresh_outbound_only: bool,
    /// From one port to the next, where they are sequential.
    #[arg(long, allow_hyphen_values = true)]
    step: Option<i16>,
    /// Mappings per second that other users make.
    #[arg(long, default_value_t = 0.0)]
    other_users: f64,
    /// Whether hosts reach each other by the external address.
    #[arg(long)]
    hairpin: Option<bool>,
    /// Limit of new flows per second and host.
    #[arg(long)]
    flows: Option<f64>,
    /// New flows at once.
    #[arg(long, default_value_t = 30)]
    burst: u32,
    /// Block a host for this time when it exceeds the limit, instead of dropping.
    #[arg(long, value_parser = duration)]
    block: Option<Duration>,
    /// Delay each way.
    #[arg(long, value_parser = duration, default_value = "0ms")]
    delay: Duration,
    /// Greatest additional delay.
    #[arg(long, value_parser = duration, default_value = "0ms")]
    jitter: Duration,
    /// Share lost, each way.
    #[arg(long, value_parser = share, default_value = "0%")]
    loss: f64,
    /// Share overtaken by others.
    #[arg(long, value_parser = share, default_value = "0%")]
    reorder: f64,
    /// Share that arrives twice.
    #[arg(long, value_parser = share, default_value = "0%")]
    duplicate: f64,
    /// Bits per second.
    #[arg(long)]
    rate: Option<u64>,
}

impl Run {
    pub(crate) fn behaviour(&self) -> Behaviour {
        let mut behaviour = Behaviour::from(self.kind);
        if let Some(timeout) = self.timeout {
            behaviour.lifetime = Lifetime::of(timeout);
        }
        behaviour.lifetime.inbound = !self.refresh_outbound_only;
        behaviour.hairpin = self.hairpin.unwrap_or(behaviour.hairpin);
        behaviour.other_users = self.other_users;
        if let (Ports::Sequential { step }, Some(wanted)) = (&mut behaviour.ports, self.step) {
            *step = wanted;
        }
        let penalty = self.block.map_or(Penalty::Drop, Penalty::Block);
        behaviour.limit = self.flows.map(|per_second| FlowLimit { per_second, burst: self.burst, penalty });
        behaviour
    }

    pub(crate) fn impairment(&self) -> Impairment {
        Impairment {
            delay: self.delay,
            jitter: self.jitter,
            loss: self.loss,
            reorder: self.reorder,
            duplicate: self.duplicate,
            rate: self.rate,
            ..Impairment::NONE
        }
    }
}

/// `20ms` or `2s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write 20ms or 2s");
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())
}

/// `2%`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let share = number.map(|number| number / 100.0).filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is no share: write 2%"))
}
