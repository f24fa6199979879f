//! Where two phones of one call are to each other: what lies between them decides what their media may do.

use std::fmt;
use std::net::IpAddr;

use crate::home::{Home, Player, apply};
use crate::network::SBC;
use crate::process::run;
use crate::{Failure, Lab, Network, Result};

/// A place for two phones. The SBC has a second address in all of them, by which NATs are learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Both in the access network, with addresses that all reach.
    Open,
    /// Both in one home, behind one router.
    Lan(Player),
    /// Each in a home of its own.
    Apart([Player; 2]),
}

/// The hosts of such a place, and what can be done to the path between them.
#[derive(Debug)]
pub struct Ground {
    place: Place,
    homes: Vec<Home>,
    /// Name and address of each host.
    pub hosts: [(String, String); 2],
    /// The address by which the far phone's packets come when they come directly, for each phone.
    pub far: [IpAddr; 2],
}

impl Ground {
    /// Makes the hosts, and gives the SBC its second address.
    pub fn new(lab: &mut Lab, place: Place) -> Result<Self> {
        Self::with(lab, place, &[])
    }

    /// The same with options of the program `nat` for the routers of both homes.
    pub fn with(lab: &mut Lab, place: Place, options: &[&str]) -> Result<Self> {
        let second = Network::Access.address(SBC + 1) + "/24";
        run(&["ip", "-n", &lab.namespace("sbc"), "addr", "add", &second, "dev", Network::Access.name()])?;
        let (homes, hosts) = match place {
            Place::Open => {
                let mut host = |name: &str, number| {
                    lab.host(name, Network::Access, number).map(|address| (name.to_owned(), address))
                };
                (Vec::new(), [host("o-1", 31)?, host("o-2", 32)?])
            }
            Place::Lan(player) => {
                let mut home = Home::new(lab, "a", player, 20, &[])?;
                let hosts = [home.host(lab)?, home.host(lab)?];
                (vec![home], hosts)
            }
            Place::Apart([a, b]) => {
                let mut a = Home::new(lab, "a", a, 20, options)?;
                let mut b = Home::new(lab, "b", b, 21, options)?;
                let hosts = [a.host(lab)?, b.host(lab)?];
                (vec![a, b], hosts)
            }
        };
        let far = match homes.as_slice() {
            [a, b] => [b.external(), a.external()].map(IpAddr::from),
            _ => [address(&hosts[1].1)?, address(&hosts[0].1)?],
        };
        Ok(Self { place, homes, hosts, far })
    }

    /// Which place it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The homes: none in the open, one for a LAN, else one for each phone.
    pub fn homes(&self) -> &[Home] {
        &self.homes
    }

    /// The address of one phone's host.
    pub fn address(&self, side: usize) -> Result<IpAddr> {
        self.hosts
            .get(side)
            .map_or_else(|| Err(Failure(format!("there is no phone {side}"))), |host| address(&host.1))
    }

    /// Lets nothing pass any more from one phone to the other, by a firewall between them that neither can see.
    pub fn cut(&self, lab: &Lab) -> Result<()> {
        match self.homes.as_slice() {
            [a, b] => a.cut(lab, b.external()),
            _ => {
                let switch = if self.place == Place::Open { "switch" } else { "a" };
                let [(_, one), (_, other)] = &self.hosts;
                let list = format!("{{ {one}, {other} }}");
                let rules = format!(
                    "table bridge cut {{\n  chain forward {{\n    type filter hook forward priority 0;\n    \
                     ip saddr {list} ip daddr {list} drop\n  }}\n}}\n"
                );
                apply(&lab.namespace(switch), &rules)
            }
        }
    }
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Failure(format!("{text} is no address")))
}

impl Place {
    /// What stands before each of the two phones, in the words of `lab nat`.
    pub fn names(self) -> [String; 2] {
        match self {
            Place::Open => ["none", "none"].map(str::to_owned),
            Place::Lan(player) => [0, 1].map(|_| format!("lan of {player}")),
            Place::Apart(players) => players.map(|player| player.to_string()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" and "))
    }
}
