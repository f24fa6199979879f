//! A scenario: the SBC between the two networks, phones on both, all of it captured. When it closes, nothing of one
//! side, or of one phone, may have shown at another.

use std::net::IpAddr;
use std::time::Duration;

use crate::capture::Capture;
use crate::hearing::{audio_to, is_rtp_to};
use crate::leak::{Leak, Secrets};
use crate::network::SBC;
use crate::phone::{Account, Event, Kind, Phone};
use crate::process::eventually;
use crate::sbc::Sbc;
use crate::{Failure, Lab, Network, Result};

/// How long anything may take that takes no time of its own, on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(20);

/// A scenario's networks and SBC.
#[derive(Debug)]
pub struct Stage {
    /// The SBC. It goes before the folder that its database lies in.
    pub sbc: Sbc,
    sides: [(Network, Capture); 2],
    hosts: [Vec<IpAddr>; 2],
    next: u8,
    tones: u8,
    /// The networks.
    pub lab: Lab,
}

/// A phone on the stage: in a host of its own, with a capture of all that reaches it.
#[derive(Debug)]
pub struct Extension {
    /// The phone.
    pub phone: Box<dyn Phone>,
    /// What it is.
    pub kind: Kind,
    /// Its user.
    pub user: String,
    /// The domain it registers and dials under.
    pub domain: String,
    /// The host's address; the private one behind a NAT.
    pub address: IpAddr,
    /// The tone that it plays.
    pub hertz: f64,
    network: Network,
    tap: Capture,
}

fn index(network: Network) -> usize {
    usize::from(network == Network::Core)
}

impl Stage {
    /// Makes networks and SBC, with these realms and this content of the database.
    pub fn new(name: &str, realms: &str, seed: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        Self::with(lab, realms, seed)
    }

    /// The same in networks that have hosts already.
    pub fn with(lab: Lab, realms: &str, seed: &str) -> Result<Self> {
        let sides = [Network::Access, Network::Core]
            .map(|network| lab.capture(network).map(|capture| (network, capture)));
        let [access, core] = sides;
        let sbc = Sbc::start(&lab, realms, seed)?;
        let mut stage =
            Stage { lab, sbc, sides: [access?, core?], hosts: [Vec::new(), Vec::new()], next: 11, tones: 0 };
        for network in [Network::Access, Network::Core] {
            stage.knows(network, &network.address(SBC))?;
            stage.knows(network, &network.address6(SBC))?;
        }
        Ok(stage)
    }

    /// What passes at the SBC on one side.
    pub fn side(&mut self, network: Network) -> &mut Capture {
        &mut self.sides[index(network)].1
    }

    /// A host's address, which the other side must not see.
    pub fn knows(&mut self, network: Network, address: &str) -> Result<IpAddr> {
        let address: IpAddr = address.parse().map_err(|_| Failure(format!("{address} is no address")))?;
        self.hosts[index(network)].push(address);
        Ok(address)
    }

    /// A phone in a host of its own, named like its user. It is not yet registered.
    pub fn phone(&mut self, kind: Kind, network: Network, account: &Account) -> Result<Extension> {
        let number = self.number();
        let address = self.lab.host(&account.user, network, number)?;
        self.on_host(kind, network, account, &account.user, &address)
    }

    /// A phone in a host that has IPv6 alone.
    pub fn phone6(&mut self, kind: Kind, network: Network, account: &Account) -> Result<Extension> {
        let number = self.number();
        let address = self.lab.host6(&account.user, network, number)?;
        self.on_host(kind, network, account, &account.user, &address)
    }

    /// A phone behind a NAT of its own on the access network.
    pub fn phone_behind_nat(
        &mut self,
        kind: Kind,
        account: &Account,
        forgets: Duration,
    ) -> Result<Extension> {
        let number = self.number();
        let address = self.lab.host_behind_nat(&account.user, number, forgets)?;
        self.knows(Network::Access, &Network::Access.address(number))?;
        self.on_host(kind, Network::Access, account, &account.user, &address)
    }

    fn number(&mut self) -> u8 {
        self.next += 1;
        self.next - 1
    }

    /// A phone in a host that is there already, and has this address.
    pub fn on_host(
        &mut self,
        kind: Kind,
        network: Network,
        account: &Account,
        host: &str,
        address: &str,
    ) -> Result<Extension> {
        let tap = self.lab.capture_at(host, "eth0")?;
        self.tones += 1;
        // Apart by more than the tone detector's width, and away from each other's harmonics.
        let hertz = 430.0 + 170.0 * f64::from(self.tones);
        let phone = kind.start(&self.lab, host, address, account, hertz)?;
        let address = self.knows(network, address)?;
        Ok(Extension {
            phone,
            kind,
            user: account.user.clone(),
            domain: account.domain.clone(),
            address,
            hertz,
            network,
            tap,
        })
    }

    /// Ends the scenario: phones, captures, and the search for what should not be there.
    pub fn close(self, phones: impl IntoIterator<Item = Extension>) -> Result<()> {
        let leaks = self.leaks(phones)?;
        match leaks.first() {
            None => Ok(()),
            Some(leak) => Err(Failure(format!(
                "{} leaks, the first: {}\n{}\n{}",
                leaks.len(),
                leak.what,
                leak.place,
                leak.payload
            ))),
        }
    }

    /// What of one side shows on the other, and what of one phone shows at another.
    pub fn leaks(self, phones: impl IntoIterator<Item = Extension>) -> Result<Vec<Leak>> {
        let sbc: Vec<IpAddr> = [Network::Access, Network::Core]
            .iter()
            .flat_map(|network| [network.address(SBC), network.address6(SBC)])
            .filter_map(|address| address.parse().ok())
            .collect();
        let seen: Vec<Seen> = phones.into_iter().map(|phone| Seen::by(phone, &sbc)).collect::<Result<_>>()?;
        let mut found = Vec::new();
        for one in &seen {
            for other in seen.iter().filter(|other| other.user != one.user) {
                found.extend(one.secrets.leaks_in(&other.packets));
                found.extend(one.secrets.leaks_in_text(&other.trace, &other.user));
            }
        }
        let [access, core] = self.sides;
        let (access, core) = (access.1.finish()?, core.1.finish()?);
        for (own, other, network) in [(&access, &core, Network::Access), (&core, &access, Network::Core)] {
            let mut secrets = Secrets::default();
            secrets.add_addresses(self.hosts[index(network)].iter().copied());
            secrets.add_packets(own, &sbc);
            let (here, there): (Vec<&Seen>, Vec<&Seen>) =
                seen.iter().partition(|seen| seen.network == network);
            for seen in &here {
                secrets.add_messages(&seen.trace);
                // A product shows only where none of its like stands on the other side too.
                if there.iter().all(|other| other.kind != seen.kind) {
                    secrets.add_word(seen.kind.product());
                }
            }
            if secrets.words() == 0 {
                return Err(Failure(format!("nothing was captured on the {} side", network.name())));
            }
            found.extend(secrets.leaks_in(other));
            for seen in there {
                found.extend(secrets.leaks_in_text(&seen.trace, &seen.user));
            }
        }
        Ok(found)
    }
}

/// What one phone has shown and seen.
struct Seen {
    user: String,
    kind: Kind,
    network: Network,
    secrets: Secrets,
    packets: Vec<crate::packet::Packet>,
    trace: String,
}

impl Seen {
    fn by(extension: Extension, sbc: &[IpAddr]) -> Result<Self> {
        let Extension { phone, kind, user, address, network, tap, .. } = extension;
        let trace = phone.trace();
        drop(phone);
        let packets = tap.finish()?;
        let mut secrets = Secrets::default();
        // Two phones behind NATs of their own may have the same private address.
        let is_private = matches!(address, IpAddr::V4(ip) if ip.is_private());
        secrets.add_addresses([address].into_iter().filter(|_| !is_private));
        secrets.add_packets(&packets, sbc);
        secrets.add_messages(&trace);
        Ok(Seen { user, kind, network, secrets, packets, trace })
    }
}

impl Extension {
    /// Waits until it is registered.
    pub fn registered(&mut self) -> Result<()> {
        self.phone.registered(SOON)
    }

    /// Dials a user under its own domain.
    pub fn dial(&mut self, user: &str) -> Result<()> {
        self.phone.dial(&format!("sip:{user}@{}", self.domain))
    }

    /// Waits for its next such event.
    pub fn wait(&mut self, event: Event) -> Result<()> {
        self.phone.wait(event, SOON)
    }

    /// A mark in what reaches it.
    pub fn mark(&mut self) -> Result<usize> {
        self.tap.mark()
    }

    /// What passes at it.
    pub fn tap(&mut self) -> &mut Capture {
        &mut self.tap
    }

    /// Waits until RTP brings it another's tone, from now on: more than half a second of it, without another in it.
    pub fn hears(&mut self, other: &Extension) -> Result<()> {
        self.hears_tone(other.hertz, &other.user)
    }

    /// The same by the tone alone.
    pub fn hears_tone(&mut self, hertz: f64, whose: &str) -> Result<()> {
        let mark = self.mark()?;
        let address = self.address;
        let mut failure = None;
        let mut heard = crate::tone::Recording { rate: 8000, samples: Vec::new() };
        let found = eventually(SOON, || match self.tap.since(mark) {
            Ok(packets) => {
                heard = audio_to(packets, address).last(0.5);
                heard.seconds() >= 0.5 && heard.has_tone(hertz)
            }
            Err(error) => {
                failure = Some(error);
                true
            }
        });
        match failure {
            Some(failure) => Err(failure),
            None if found => Ok(()),
            None => Err(Failure(format!(
                "{} does not hear {whose}: {:.1} s of RTP came, of which {:.2} is its tone",
                self.user,
                heard.seconds(),
                heard.share_of(hertz)
            ))),
        }
    }

    /// Waits until the phone's own recording grows, and ends in another's tone.
    pub fn records(&mut self, other: &Extension) -> Result<()> {
        let before = self.phone.heard().map_or(0.0, |heard| heard.seconds());
        let heard = || {
            self.phone
                .heard()
                .is_ok_and(|heard| heard.seconds() > before + 0.4 && heard.last(0.4).has_tone(other.hertz))
        };
        if eventually(SOON, heard) {
            return Ok(());
        }
        let heard = self.phone.heard()?;
        Err(Failure(format!(
            "{} has not recorded {}: {:.1} s, of which {:.2} is its tone",
            self.user,
            other.user,
            heard.seconds(),
            heard.last(0.4).share_of(other.hertz)
        )))
    }

    /// Waits until no RTP has reached it for a while, and fails if it does not stop.
    pub fn falls_silent(&mut self, silence: Duration) -> Result<()> {
        let address = self.address;
        let start = std::time::Instant::now();
        while start.elapsed() < SOON {
            let mark = self.mark()?;
            std::thread::sleep(silence);
            if !self.tap.since(mark)?.iter().any(|packet| is_rtp_to(packet, address)) {
                return Ok(());
            }
        }
        Err(Failure(format!("RTP goes on to {}", self.user)))
    }
}
