//! Where the phones of a call are: every pair of places, and the networks of one.

use std::net::IpAddr;
use std::time::Duration;

use crush_tests::capture::Capture;
use crush_tests::home::{Home, Player};
use crush_tests::network::SBC;
use crush_tests::process::run;
use crush_tests::{Lab, Network, Result};
use nat_lab::Kind;
use nat_lab::nft::Rules;

/// Where a phone may be, under the names of the virtual matrix.
const PLACES: [(&str, Option<Player>); 7] = [
    ("public", None),
    ("upnp", Some(Player::Upnp(Rules::SymmetricRandom))),
    ("full-cone", Some(Player::Tun(Kind::FullCone))),
    ("restricted-cone", Some(Player::Tun(Kind::RestrictedCone))),
    ("cone", Some(Player::Tun(Kind::Cone))),
    ("symmetric-sequential", Some(Player::Tun(Kind::SymmetricSequential))),
    ("symmetric-random", Some(Player::Tun(Kind::SymmetricRandom))),
];
/// The limiter: new flows per second of a host, and at once.
const LIMIT: (u32, u32) = (30, 30);

/// One pair under one set of conditions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) names: [&'static str; 2],
    players: [Option<Player>; 2],
    /// Both in the home of the first.
    share: bool,
    pub(super) limited: bool,
}

impl Cell {
    /// Same LAN, and every place with every other, one way round.
    pub(super) fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for limited in [false, true] {
            let player = Some(Player::Tun(Kind::Cone));
            cells.push(Self { names: ["same-lan"; 2], players: [player; 2], share: true, limited });
            for (index, (a, one)) in PLACES.into_iter().enumerate() {
                cells.extend(PLACES.into_iter().skip(index).map(|(b, other)| Self {
                    names: [a, b],
                    players: [one, other],
                    share: false,
                    limited,
                }));
            }
        }
        cells
    }

    /// A path exists that needs no port to be guessed.
    pub(super) fn is_easy(&self) -> bool {
        let guessed = |name: &str| name.starts_with("symmetric");
        let filters_ports = |name: &str| name == "cone" || guessed(name);
        let [a, b] = self.names;
        !(guessed(a) && filters_ports(b) || guessed(b) && filters_ports(a))
    }

    /// Haste where nothing is in the way, and that was said; nothing is said where a limiter is.
    pub(super) fn temper(&self) -> &'static str {
        if self.limited { "normal" } else { "fast" }
    }

    pub(super) fn options(&self) -> &'static [&'static str] {
        if self.limited { &[] } else { &["--temper", "fast"] }
    }

    /// As in the virtual matrix.
    pub(super) fn limiter(&self) -> &'static str {
        if self.limited { "block" } else { "setting" }
    }

    /// The spray's own limit, and what discovery and the handoff take.
    pub(super) fn within(&self) -> Duration {
        Duration::from_secs(if self.limited { 64 } else { 34 })
    }
}

/// A host with a phone on it.
#[derive(Debug)]
pub(super) struct Party<P> {
    pub(super) phone: P,
    pub(super) tap: Capture,
    pub(super) address: IpAddr,
}

/// A host's name and address.
type Host = (String, String);

/// The networks of a cell: its homes, and a host in each.
pub(super) fn places(cell: &Cell) -> Result<(Lab, Vec<Home>, [Host; 2])> {
    let mut lab = Lab::new("matrix")?;
    let second = Network::Access.address(SBC + 1);
    let device = Network::Access.name();
    run(&["ip", "-n", &lab.namespace("sbc"), "addr", "add", &format!("{second}/23"), "dev", device])?;
    let (flows, burst) = (LIMIT.0.to_string(), LIMIT.1.to_string());
    let mut homes = Vec::new();
    let mut hosts = Vec::new();
    for (index, player) in cell.players.into_iter().enumerate() {
        let name = ["a", "b"][index];
        let number = 20 + index as u8;
        let Some(player) = player else {
            hosts.push((name.to_owned(), lab.host(name, Network::Access, number)?));
            continue;
        };
        if !(cell.share && index == 1) {
            let mut options = vec!["--delay", "20ms"];
            if cell.limited {
                options.extend(["--flows", &flows, "--burst", &burst, "--block", "2s"]);
            }
            let is_program = matches!(player, Player::Tun(_));
            let home = Home::new(&mut lab, name, player, number, if is_program { &options } else { &[] })?;
            if cell.limited && !is_program {
                home.limit(&lab, LIMIT.0, LIMIT.1)?;
            }
            homes.push(home);
        }
        let last = homes.len() - 1;
        hosts.push(homes[last].host(&mut lab)?);
    }
    let [one, other] = <[_; 2]>::try_from(hosts).unwrap_or_else(|_| unreachable!());
    Ok((lab, homes, [one, other]))
}
