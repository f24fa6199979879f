//! What a phone can be asked to do, and what it tells: the same for every product.

use std::time::Duration;

use crate::tone::{PLAYS, Recording, sine};
use crate::{Lab, Network, Result, baresip, linphone, pjsua, softphone};

/// What a phone is to be.
#[derive(Debug, Clone)]
pub struct Account {
    /// User part.
    pub user: String,
    /// Password for digest.
    pub password: String,
    /// Domain of the address of record; an IPv6 address in brackets.
    pub domain: String,
    /// Where it registers and calls, `host[:port]`.
    pub proxy: String,
    /// "udp", "tcp" or "tls".
    pub transport: &'static str,
    /// Registration's length in seconds; zero registers nothing.
    pub expires: u32,
    /// How many calls it takes; one more is busy.
    pub calls: u8,
    /// Seconds after which it gives up ringing.
    pub rings: u32,
    /// Its Contact stays its own address behind a NAT; linphone and PJSIP write what the registrar saw unless told so.
    pub keeps_contact: bool,
    /// It speaks ICE (linphone and PJSIP).
    pub ice: bool,
    /// The address of a STUN and TURN server for it, user `lab`, password `lab` (PJSIP alone).
    pub turn: Option<String>,
    /// It offers SRTP with keys in SDP, and takes no call without.
    pub srtp: bool,
    /// It sends nothing while it has nothing to say (PJSIP alone: its voice activity detection).
    pub vad: bool,
    /// What it plays in its calls in place of its tone (not the project's own phone).
    pub says: Option<Recording>,
}

impl Account {
    /// A subscriber of a network whose domain is the SBC's address there, with the password "secret".
    pub fn of(user: &str, network: Network, transport: &'static str) -> Self {
        let domain = network.address(crate::network::SBC);
        Account {
            user: user.to_owned(),
            password: "secret".into(),
            proxy: domain.clone(),
            domain,
            transport,
            expires: 600,
            calls: 4,
            rings: 60,
            keeps_contact: false,
            ice: false,
            turn: None,
            srtp: false,
            vad: true,
            says: None,
        }
    }

    /// What it plays: a tone of its own if nothing else is wished.
    pub(crate) fn recording(&self, hertz: f64) -> Recording {
        self.says.clone().unwrap_or_else(|| sine(8000, hertz, PLAYS))
    }

    /// The port of the proxy goes with the transport unless it is named.
    pub fn proxy_uri(&self) -> String {
        let has_port =
            self.proxy.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let port = if has_port {
            ""
        } else if self.transport == "tls" {
            ":5061"
        } else {
            ":5060"
        };
        format!("sip:{}{port};transport={}", self.proxy, self.transport)
    }
}

/// The products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// baresip 1.0 (Debian's baresip-core).
    Baresip,
    /// linphonec 5.1 (Debian's linphone-cli).
    Linphone,
    /// PJSIP 2.15 (pjsua2-python of PyPI).
    Pjsua,
    /// The project's own (`phone`).
    Softphone,
}

impl Kind {
    /// The program that must be there.
    pub fn program(self) -> &'static str {
        match self {
            Kind::Baresip => "baresip",
            Kind::Linphone => "linphonec",
            Kind::Pjsua => "pjsua2",
            Kind::Softphone => "phone",
        }
    }

    /// The word by which it shows itself in User-Agent and SDP.
    pub fn product(self) -> &'static str {
        match self {
            Kind::Baresip => "baresip",
            Kind::Linphone => "Linphone",
            Kind::Pjsua => "pjsua2-phone",
            Kind::Softphone => "crush-phone",
        }
    }

    /// Whether it plays to the one it holds, offering sendonly; the others send nothing then.
    pub fn plays_on_hold(self) -> bool {
        matches!(self, Kind::Linphone | Kind::Softphone)
    }

    /// Whether an INVITE with Replaces (RFC 3891) takes the place of a call of it; with the others it rings.
    pub fn knows_replaces(self) -> bool {
        self != Kind::Baresip
    }

    /// Starts such a phone on a host, listening at `address`; it plays a tone of `hertz` in every call and records
    /// what it hears.
    pub fn start(
        self,
        lab: &Lab,
        host: &str,
        address: &str,
        account: &Account,
        hertz: f64,
    ) -> Result<Box<dyn Phone>> {
        Ok(match self {
            Kind::Baresip => Box::new(baresip::Baresip::start(lab, host, address, account, hertz)?),
            Kind::Linphone => Box::new(linphone::Linphone::start(lab, host, address, account, hertz)?),
            Kind::Pjsua => Box::new(pjsua::Pjsua::start(lab, host, address, account, hertz)?),
            Kind::Softphone => Box::new(softphone::Softphone::start(lab, host, account, hertz)?),
        })
    }
}

/// What a phone tells. Each is waited for in the order of what it says: an event is used up by waiting for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Somebody calls.
    Incoming,
    /// The one called rings.
    Ringing,
    /// The call is up.
    Established,
    /// A call has ended, or was refused.
    Ended,
}

/// A running phone. Its dialled addresses are whole URIs.
pub trait Phone: std::fmt::Debug + Send {
    /// Waits until it is registered (for the first time).
    fn registered(&mut self, within: Duration) -> Result<()>;
    /// Calls.
    fn dial(&mut self, uri: &str) -> Result<()>;
    /// Takes the call that rings.
    fn answer(&mut self) -> Result<()>;
    /// Refuses the call that rings.
    fn refuse(&mut self) -> Result<()>;
    /// Ends the current call, also one that still rings at the other end.
    fn hang_up(&mut self) -> Result<()>;
    /// Holds the current call.
    fn hold(&mut self) -> Result<()>;
    /// Takes it up again.
    fn resume(&mut self) -> Result<()>;
    /// Sends nothing until told to, of products whose voice activity detection cannot be had otherwise (linphone).
    fn mute(&mut self) -> Result<()> {
        Ok(())
    }
    /// Speaks again.
    fn unmute(&mut self) -> Result<()> {
        Ok(())
    }
    /// Sends a digit as a telephone event (RFC 4733); refused by a product that cannot.
    fn press(&mut self, digit: char) -> Result<()>;
    /// Sends the other one to somebody else (RFC 5589 §6).
    fn transfer(&mut self, uri: &str) -> Result<()>;
    /// Joins the other ones of its first and second call (RFC 5589 §7); refused by a product that cannot.
    fn join(&mut self) -> Result<()>;
    /// Waits for the next such event.
    fn wait(&mut self, event: Event, within: Duration) -> Result<()>;
    /// All SIP it has sent and received, in clear, and what else it has said.
    fn trace(&self) -> String;
    /// What it has heard in its latest call.
    fn heard(&self) -> Result<Recording>;
    /// Its process.
    fn id(&self) -> u32;
}
