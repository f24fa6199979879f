//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, ValueEnum};
use media_wire::sdp::crush::Temper;
use sip_engine::io::Transport;
use sip_engine::question::Resolve;

use crate::encryption::Srtp;

/// A softphone that speaks CRUSH. On standard input it takes `dial URI`, `answer`, `refuse`, `hangup`, `hold`, `resume`, `transfer URI`,
/// `join` (the other ends of its first and newest call), `relay` (everything back to the relay), `direct` (as the SBC says) and `quit`.
#[derive(Debug, Parser)]
#[command(name = "phone", version)]
pub(crate) struct Options {
    /// Account: `sip:user:password@domain`. Without a password, that of SIP_PASSWORD.
    #[arg(long, value_name = "URI")]
    pub(crate) register: Account,
    /// Where it registers and calls, `host[:port]`. Default: the account's domain.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) registrar: Option<String>,
    /// How it gets there.
    #[arg(long, value_enum, default_value = "udp")]
    pub(crate) transport: Way,
    /// Registration's length, seconds; 0 registers nothing.
    #[arg(long, default_value_t = 600)]
    pub(crate) expires: u32,
    /// Which phone this is among those of its account: a UUID, the same at each start, so that a registration takes the place of this
    /// phone's last one. Default: one that is kept for the account in the state folder of the user; of two phones of an account that
    /// run at once the second makes up its own.
    #[arg(long, value_name = "UUID")]
    pub(crate) instance: Option<uuid::Uuid>,
    #[command(flatten)]
    pub(crate) calls: Calls,
    #[command(flatten)]
    pub(crate) source: Source,
    /// Records what is heard in each call: WAV, 8,000 Hz. A second call's file gets `-2` before its suffix.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// A second m-line with pictures that are counted, not shown.
    #[arg(long)]
    pub(crate) video: bool,
    #[command(flatten)]
    pub(crate) telling: Telling,
    /// The local port of SIP over UDP; 0 for any.
    #[arg(long, default_value_t = 5060)]
    pub(crate) port: u16,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Encryption of media (SRTP), with keys in the signalling: use TLS for that. `accept` encrypts calls whose caller offers it; `require`
    /// offers it, and refuses and makes no calls without.
    #[arg(long, value_enum, default_value = "accept")]
    pub(crate) srtp: Srtp,
    #[command(flatten)]
    pub(crate) paths: Paths,
}

/// What it does without its user.
#[derive(Debug, Clone, Args)]
pub(crate) struct Calls {
    /// Calls this address once it is registered.
    #[arg(long, value_name = "URI")]
    pub(crate) call: Option<String>,
    /// Answers every call.
    #[arg(long)]
    pub(crate) answer: bool,
    /// Hangs up after so many seconds of a call, and ends.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<f64>,
}

/// What it shows.
#[derive(Debug, Clone, Args)]
pub(crate) struct Telling {
    /// Tells what happens as one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Shows SIP messages on standard error.
    #[arg(long)]
    pub(crate) trace: bool,
}

/// Whom TLS trusts.
#[derive(Debug, Clone, Args)]
pub(crate) struct Trust {
    /// Certificates that TLS trusts, PEM. Default: the system's.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// TLS takes any certificate: for laboratories only.
    #[arg(long, conflicts_with = "ca")]
    pub(crate) trust_anybody: bool,
}

/// What it says.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub(crate) struct Source {
    /// Plays a WAV file (16 bit, 8,000 Hz, mono) again and again.
    #[arg(long, value_name = "FILE")]
    pub(crate) play: Option<PathBuf>,
    /// Plays a tone of so many Hz.
    #[arg(long, value_name = "HERTZ")]
    pub(crate) tone: Option<f64>,
    /// Sends no audio at all, as phones that suppress silence do in a pause. With neither `--play`, `--tone` nor this it sends silence
    /// in packets.
    #[arg(long)]
    pub(crate) silence: bool,
}

/// What may become of a call's path.
#[derive(Debug, Clone, Args)]
pub(crate) struct Paths {
    /// An ordinary phone: CRUSH is not offered.
    #[arg(long)]
    pub(crate) no_crush: bool,
    /// How fast it looks for a direct path: `fast` (200 new flows a second) only in a network that is known to bear it; 25 a second are
    /// borne by nearly all. If nothing is said, what the SBC says of its network, or what `--limit` needs, else `normal`.
    #[arg(long, value_enum)]
    pub(crate) temper: Option<Pace>,
    /// New flows in any second that the network bears, for all calls together.
    #[arg(long, value_name = "FLOWS")]
    pub(crate) limit: Option<f64>,
    /// Does not show its own addresses to the peer, only those that servers see.
    #[arg(long)]
    pub(crate) hide_hosts: bool,
    /// Does not ask the router to open ports (PCP, NAT-PMP, UPnP).
    #[arg(long)]
    pub(crate) no_port_mapping: bool,
}

impl Paths {
    /// What the user has said that the network bears.
    pub(crate) fn temper(&self) -> Option<Temper> {
        let is_fast = self.limit.is_some_and(|limit| limit > BORNE_BY_MOST);
        self.temper.map(Pace::temper).or(is_fast.then_some(Temper::Fast))
    }

    pub(crate) fn asks_router(&self) -> bool {
        !self.no_crush && !self.no_port_mapping
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    Udp,
    Tcp,
    Tls,
}

impl Way {
    pub(crate) fn transport(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            Self::Tcp => Transport::Tcp,
            Self::Tls => Transport::Tls,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pace {
    Fast,
    Normal,
    Stealth,
}

impl Pace {
    pub(crate) fn temper(self) -> Temper {
        match self {
            Self::Fast => Temper::Fast,
            Self::Normal => Temper::Normal,
            Self::Stealth => Temper::Stealth,
        }
    }
}

/// New flows a second that networks are taken to bear of which nothing is known (docs/crush.md §5.1).
const BORNE_BY_MOST: f64 = 25.0;

/// `sip:user:password@domain`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    /// An IPv6 address in brackets.
    pub(crate) domain: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.aor())
    }
}

impl std::str::FromStr for Account {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "an account looks like sip:user:password@domain";
        let rest = text.strip_prefix("sip:").ok_or(FORM)?;
        let (userinfo, domain) = rest.rsplit_once('@').ok_or(FORM)?;
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password.to_owned())),
            None => (userinfo, None),
        };
        let is_plain = |text: &str| !text.is_empty() && !text.contains(['<', '>', '"', ' ', ';']);
        if !is_plain(user) || !is_plain(domain) {
            return Err(FORM);
        }
        Ok(Self { user: user.to_owned(), password, domain: domain.to_owned() })
    }
}

impl Account {
    /// The address of record.
    pub(crate) fn aor(&self) -> String {
        format!("sip:{}@{}", self.user, self.domain)
    }
}

impl Options {
    /// What is to be resolved to reach the registrar (RFC 3263).
    pub(crate) fn registrar(&self) -> Resolve {
        let text = self.registrar.as_deref().unwrap_or(&self.register.domain);
        let transport = self.transport.transport();
        let secure = transport == Transport::Tls;
        let resolve =
            |host: &str, port| Resolve { host: Arc::from(host), port, transport: Some(transport), secure };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return resolve(&address.ip().to_string(), Some(address.port()));
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() {
            return resolve(bare, None);
        }
        match text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
            Some((host, Ok(port))) => resolve(host, Some(port)),
            _ => resolve(text, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_taken_apart() {
        let account: Account = "sip:alice:pa:ss@[2001:db8::1]".parse().unwrap();
        assert_eq!((account.user.as_str(), account.password.as_deref()), ("alice", Some("pa:ss")));
        assert_eq!(account.aor(), "sip:alice@[2001:db8::1]");
        assert!(!format!("{account:?}").contains("pa:ss"));
        for wrong in ["alice@host", "sip:host", "sip:@host", "sip:a b@host", "sip:alice@"] {
            assert!(wrong.parse::<Account>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_registrar_may_be_an_address_of_either_family_or_a_name() {
        let of = |registrar: &str| {
            let line = ["phone", "--register", "sip:alice@example.net", "--registrar", registrar];
            let resolve = Options::parse_from(line).registrar();
            (resolve.host.to_string(), resolve.port)
        };
        assert_eq!(of("192.0.2.1"), ("192.0.2.1".to_owned(), None));
        assert_eq!(of("192.0.2.1:5070"), ("192.0.2.1".to_owned(), Some(5070)));
        assert_eq!(of("[2001:db8::1]:5070"), ("2001:db8::1".to_owned(), Some(5070)));
        assert_eq!(of("[2001:db8::1]"), ("2001:db8::1".to_owned(), None));
        assert_eq!(of("sbc.example.net"), ("sbc.example.net".to_owned(), None));
        assert_eq!(of("sbc.example.net:5062"), ("sbc.example.net".to_owned(), Some(5062)));
    }
}
