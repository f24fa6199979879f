//! What a party calls with: an ordinary telephone, one that speaks ICE, or an endpoint of CRUSH.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use nat_lab::{HostId, Network};

use super::checking::{self, CheckingPhone};
use super::crush::CrushPhone;
use super::plain::{Kind, Phone};
use crate::Dice;

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// A telephone.
    Ordinary(Kind),
    /// One that speaks ICE.
    Ice,
    /// An endpoint of CRUSH.
    Crush,
    /// The same, which tells the relay nothing of its path.
    Untold,
    /// It could, and says in no description that it does.
    Declining,
}

impl Model {
    /// Its User-Agent.
    pub fn product(self) -> &'static str {
        match self {
            Self::Ordinary(kind) => kind.product(),
            Self::Ice => checking::PRODUCT,
            Self::Crush | Self::Untold | Self::Declining => "crush-phone",
        }
    }
}

/// One of them.
#[derive(Debug)]
pub enum Device {
    /// A telephone.
    Ordinary(Box<Phone>),
    /// One that speaks ICE.
    Ice(Box<CheckingPhone>),
    /// An endpoint of CRUSH.
    Crush(Box<CrushPhone>),
}

impl Device {
    /// Of the first party or the second, with its media at `local`.
    pub fn new(model: Model, host: HostId, local: SocketAddr, party: usize, dice: &mut Dice) -> Self {
        match model {
            Model::Ordinary(kind) => {
                Self::Ordinary(Box::new(Phone::new(kind, host, local, 0x1000 + party as u32, dice)))
            }
            Model::Ice => Self::Ice(Box::new(CheckingPhone::new(host, local, party))),
            Model::Crush | Model::Untold | Model::Declining => {
                Self::Crush(Box::new(CrushPhone::new(host, local, party, model, dice)))
            }
        }
    }

    /// How an ordinary one takes what it is told.
    pub fn temperament(&self) -> Option<Kind> {
        match self {
            Self::Ordinary(phone) => Some(phone.kind),
            Self::Ice(_) | Self::Crush(_) => None,
        }
    }

    /// As a telephone.
    pub fn ordinary_mut(&mut self) -> Option<&mut Phone> {
        match self {
            Self::Ordinary(phone) => Some(phone),
            Self::Ice(_) | Self::Crush(_) => None,
        }
    }

    /// As an endpoint of CRUSH.
    pub fn crush_mut(&mut self) -> Option<&mut CrushPhone> {
        match self {
            Self::Ordinary(_) | Self::Ice(_) => None,
            Self::Crush(phone) => Some(phone),
        }
    }

    /// Where its media is.
    pub fn local(&self) -> SocketAddr {
        match self {
            Self::Ordinary(phone) => phone.local,
            Self::Ice(phone) => phone.local(),
            Self::Crush(phone) => phone.local,
        }
    }

    /// Its offer.
    pub fn describe(&mut self, direction: &'static str) -> Bytes {
        match self {
            Self::Ordinary(phone) => phone.describe(direction),
            Self::Ice(phone) => phone.describe(direction),
            Self::Crush(phone) => phone.describe(direction, true),
        }
    }

    /// The offer that it is asked for in mid-call.
    pub fn offer(&mut self) -> Bytes {
        match self {
            Self::Ice(phone) => phone.offer(),
            Self::Ordinary(_) | Self::Crush(_) => self.describe("sendrecv"),
        }
    }

    /// Its answer to an offer, which it follows.
    pub fn answer(&mut self, offer: &[u8], now: Duration, dice: &mut Dice) -> Bytes {
        match self {
            Self::Ordinary(phone) => phone.answer(offer, now, dice),
            Self::Ice(phone) => phone.answer(offer, now),
            Self::Crush(phone) => phone.answer(offer, now),
        }
    }

    /// Does what the far description says.
    pub fn follow(&mut self, sdp: &[u8], now: Duration, dice: &mut Dice) {
        match self {
            Self::Ordinary(phone) => phone.follow(sdp, now, dice),
            Self::Ice(phone) => phone.follow(sdp, now),
            Self::Crush(phone) => phone.follow(sdp, now),
        }
    }

    /// Speaks if it `talks`, reports and plays what is due, while the call is up; often enough for packets of 20 ms. The name of one that
    /// it has sent, and where to, unless it is of CRUSH.
    pub fn tick(
        &mut self,
        network: &mut Network,
        now: Duration,
        talks: bool,
        dice: &mut Dice,
    ) -> Option<((u32, u16), SocketAddr)> {
        let is_packet_time = talks && now.as_millis().is_multiple_of(20);
        match self {
            Self::Ordinary(phone) => {
                let has_spoken = is_packet_time && phone.speak(network, now, dice);
                phone.report(network, now, dice);
                phone.target.filter(|_| has_spoken).map(|to| ((phone.ssrc, phone.sequence as u16), to))
            }
            Self::Ice(phone) => phone.tick(network, now, is_packet_time),
            Self::Crush(phone) => {
                if is_packet_time {
                    phone.speak(now);
                }
                phone.listen(now);
                phone.report(network, now);
                None
            }
        }
    }

    /// A datagram for its host.
    pub fn hear(&mut self, source: SocketAddr, at: SocketAddr, packet: &[u8], now: Duration) {
        match self {
            Self::Ordinary(phone) if phone.local == at => phone.hear(source, packet, now),
            Self::Ice(phone) if phone.local() == at => phone.hear(source, packet, now),
            Self::Ordinary(_) | Self::Ice(_) => {}
            Self::Crush(phone) => phone.hear(source, at, packet, now),
        }
    }

    /// Its place in the network.
    pub fn host(&self) -> HostId {
        match self {
            Self::Ordinary(phone) => phone.host,
            Self::Ice(phone) => phone.host,
            Self::Crush(phone) => phone.host,
        }
    }

    /// Whether it listens, as was agreed.
    pub fn is_hearing(&self) -> bool {
        match self {
            Self::Ordinary(phone) => phone.is_hearing(),
            Self::Ice(phone) => phone.hears,
            Self::Crush(phone) => phone.hears,
        }
    }

    /// Whether it sends elsewhere than to an address of the relay's.
    pub fn is_away(&self, relay: &[IpAddr]) -> bool {
        match self {
            Self::Ordinary(phone) => phone.target.is_some_and(|at| !relay.contains(&at.ip())),
            Self::Ice(phone) => phone.is_away(relay),
            Self::Crush(phone) => phone.is_away(relay),
        }
    }

    /// When it last heard the other party.
    pub fn heard(&self) -> Duration {
        match self {
            Self::Ordinary(phone) => phone.heard,
            Self::Ice(phone) => phone.heard,
            Self::Crush(phone) => phone.heard,
        }
    }

    /// How long it heard nothing at most.
    pub fn longest_silence(&mut self) -> &mut Duration {
        match self {
            Self::Ordinary(phone) => &mut phone.longest_silence,
            Self::Ice(phone) => &mut phone.longest_silence,
            Self::Crush(phone) => &mut phone.longest_silence,
        }
    }
}
