//! Homes: hosts in a LAN behind a router that is a NAT of a given kind, on the access network.
//!
//! ```text
//!  a-1, a-2 ... 192.168.A.0/24 --[ a ]--+-- access -- SBC (two addresses), STUN and TURN server
//!  b-1, b-2 ... 192.168.B.0/24 --[ b ]--+
//! ```

use std::fmt;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use nat_lab::Kind;
use nat_lab::nft::{self, Rules};

use crate::network::{PREFIX, SBC};
use crate::process::{Process, run};
use crate::{Failure, Lab, Network, Result, upnp};

/// What the names of NATs begin with whose router opens ports.
const UPNP: &str = "upnp-";

/// What a home's router lets through of IPv6.
const FIREWALL: &str = "table ip6 firewall {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname lan accept
    }
}
";

/// Who plays the NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Player {
    /// The program `nat` with the model, over a TUN device.
    Tun(Kind),
    /// Linux, by nftables.
    Nft(Rules),
    /// The same, and the router opens ports for hosts that ask: see [`upnp`](crate::upnp).
    Upnp(Rules),
}

impl fmt::Display for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Player::Tun(kind) => kind.fmt(f),
            Player::Nft(rules) => rules.fmt(f),
            Player::Upnp(rules) => write!(f, "{UPNP}{rules}"),
        }
    }
}

impl FromStr for Player {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self> {
        if let Some(rules) = name.strip_prefix(UPNP).and_then(|name| name.parse().ok()) {
            return Ok(Player::Upnp(rules));
        }
        let rules = || name.parse().map(Player::Nft).ok();
        name.parse().map(Player::Tun).ok().or_else(rules).ok_or_else(|| {
            let names = Kind::ALL.map(Kind::name).into_iter().chain(Rules::ALL.map(Rules::name));
            Failure(format!("no NAT is called {name:?}; there are {}", names.collect::<Vec<_>>().join(", ")))
        })
    }
}

/// A home: its router, and the way to command it.
#[derive(Debug)]
pub struct Home {
    name: String,
    number: u8,
    player: Player,
    control: PathBuf,
    hosts: u8,
    shell: Option<Process>,
    /// Of a router that opens ports.
    opener: Option<Process>,
}

impl Home {
    /// Makes a home whose router has this host number on the access network. `options` are further ones of the program
    /// `nat` (`--delay 20ms --loss 2%`); a router of nftables rules takes none, since this kernel has no netem.
    pub fn new(lab: &mut Lab, name: &str, player: Player, number: u8, options: &[&str]) -> Result<Self> {
        let router = lab.add_namespace(name)?;
        lab.plug(&router, "wan", Network::Access, &[external(player, number).to_string() + PREFIX])?;
        let (bridge, lan) = (["ip", "-n", &router, "link"], format!("192.168.{number}.1/24"));
        run(&[&bridge[..], &["add", "lan", "type", "bridge"]].concat())?;
        run(&[&bridge[..], &["set", "lan", "up"]].concat())?;
        run(&["ip", "-n", &router, "addr", "add", &lan, "dev", "lan"])?;
        let control = lab.folder().join(format!("{name}.sock"));
        let mut home =
            Home { name: name.to_owned(), number, player, control, hosts: 0, shell: None, opener: None };
        match player {
            Player::Tun(kind) => home.shell = Some(home.start(lab, kind, options)?),
            Player::Nft(_) | Player::Upnp(_) if !options.is_empty() => {
                return Err(Failure(format!("{player} takes no options: {options:?}")));
            }
            Player::Nft(rules) => {
                home.route(lab, rules)?;
            }
            Player::Upnp(rules) => {
                home.route(lab, rules)?;
                home.opener = Some(upnp::start(lab, name, home.external())?);
            }
        }
        Ok(home)
    }

    /// Linux begins to translate.
    fn route(&self, lab: &Lab, rules: Rules) -> Result<()> {
        let router = lab.namespace(&self.name);
        lab.sysctl(&router, "net.ipv4.ip_forward=1")?;
        let hosts = [10, 11].map(|host| Ipv4Addr::new(192, 168, self.number, host));
        apply(&router, &rules.text(self.external(), hosts))
    }

    fn start(&self, lab: &Lab, kind: Kind, options: &[&str]) -> Result<Process> {
        let (external, inside) = (self.external().to_string(), format!("192.168.{}.0/24", self.number));
        let (program, control) = (program()?, self.control.display().to_string());
        let seed = self.number.to_string();
        let mut argv = vec![program.as_str(), "--kind", kind.name(), "--external", &external];
        argv.extend(["--inside", &inside, "--control", &control, "--seed", &seed]);
        argv.extend(options);
        let shell = lab.start(&self.name, &format!("nat-{}", self.name), &argv)?;
        shell.says("ready", Duration::from_secs(20))?;
        Ok(shell)
    }

    /// Its name, which is its router's too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command line that gives the program `nat` a command; `None` where nftables is the NAT.
    pub fn teller(&self) -> Result<Option<String>> {
        let tell = || Ok(format!("{} tell {}", program()?, self.control.display()));
        self.shell.as_ref().map(|_| tell()).transpose()
    }

    /// The router's address on the access network: what the others see of this home.
    pub fn external(&self) -> Ipv4Addr {
        external(self.player, self.number)
    }

    /// Adds a host to the LAN, named after the home and its number (`a-1`). Returns name and address.
    pub fn host(&mut self, lab: &mut Lab) -> Result<(String, String)> {
        self.hosts += 1;
        let name = format!("{}-{}", self.name, self.hosts);
        let (inside, router) = (lab.add_namespace(&name)?, lab.namespace(&self.name));
        let port = format!("port{}", self.hosts);
        run(&[
            "ip", "link", "add", "eth0", "netns", &inside, "type", "veth", "peer", "name", &port, "netns",
            &router,
        ])?;
        run(&["ip", "-n", &router, "link", "set", &port, "master", "lan", "up"])?;
        let address = format!("192.168.{}.{}", self.number, 9 + self.hosts);
        run(&["ip", "-n", &inside, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        run(&["ip", "-n", &inside, "link", "set", "eth0", "up"])?;
        let gateway = format!("192.168.{}.1", self.number);
        run(&["ip", "-n", &inside, "route", "add", "default", "via", &gateway])?;
        Ok((name, address))
    }

    /// Gives the home and its hosts IPv6 beside what they have (2001:db8:b:N::/64), and the way to another home. The router is a
    /// firewall then, no NAT: it lets in only what answers something (RFC 6092 §3.3).
    pub fn add_ipv6(&self, lab: &Lab, other: &Home) -> Result<()> {
        let router = lab.namespace(&self.name);
        lab.sysctl(&router, "net.ipv6.conf.all.forwarding=1")?;
        apply(&router, FIREWALL)?;
        let prefix = |home: &Home| format!("2001:db8:b:{:x}::", home.number);
        let add = |namespace: &str, address: String, device: &str| {
            run(&["ip", "-n", namespace, "addr", "add", &address, "dev", device, "nodad"])
        };
        let outside = |home: &Home| Network::Access.address6(home.number);
        add(&router, outside(self) + "/64", "wan")?;
        add(&router, prefix(self) + "1/64", "lan")?;
        run(&["ip", "-n", &router, "route", "add", &(prefix(other) + "/64"), "via", &outside(other)])?;
        for host in 1..=self.hosts {
            let inside = lab.namespace(&format!("{}-{host}", self.name));
            add(&inside, format!("{}{:x}/64", prefix(self), 9 + host), "eth0")?;
            run(&["ip", "-n", &inside, "route", "add", "default", "via", &(prefix(self) + "1")])?;
        }
        Ok(())
    }

    /// The way between a home's IPv6 and the SBC, and none to other homes.
    pub fn lead_ipv6_to_sbc(&self, lab: &Lab) -> Result<()> {
        let router = lab.namespace(&self.name);
        run(&["ip", "-n", &router, "route", "flush", "proto", "boot", "root", "2001:db8:b::/48"])?;
        let prefix = format!("2001:db8:b:{:x}::/64", self.number);
        let router = Network::Access.address6(self.number);
        run(&["ip", "-n", &lab.namespace("sbc"), "route", "add", &prefix, "via", &router]).map(drop)
    }

    /// Gives the program `nat` a command (`show`, `rebind`, `line loss=5%` ...) and returns its answer.
    pub fn tell(&self, words: &[&str]) -> Result<String> {
        let (program, control) = (program()?, self.control.display().to_string());
        run(&[&[program.as_str(), "tell", &control], words].concat())
    }

    /// Lets nothing pass any more between this home and a public address.
    pub fn cut(&self, lab: &Lab, remote: Ipv4Addr) -> Result<()> {
        match self.player {
            Player::Tun(_) => self.tell(&["cut", &remote.to_string()]).map(drop),
            _ => apply(&lab.namespace(&self.name), &nft::cut(&[remote])),
        }
    }

    /// Takes back [`cut`](Self::cut).
    pub fn restore(&self, lab: &Lab, remote: Ipv4Addr) -> Result<()> {
        match self.player {
            Player::Tun(_) => self.tell(&["restore", &remote.to_string()]).map(drop),
            _ => apply(&lab.namespace(&self.name), "delete table ip cut\n"),
        }
    }

    /// Limits the new flows of each host behind nftables rules; the program `nat` has options for it.
    pub fn limit(&self, lab: &Lab, per_second: u32, burst: u32) -> Result<()> {
        apply(&lab.namespace(&self.name), &nft::limiter(per_second, burst))
    }

    /// How often the limit of new flows has struck: blocked a host, or dropped a packet.
    pub fn limited(&self, lab: &Lab) -> Result<u64> {
        let (shown, before) = match self.player {
            Player::Tun(_) => (self.tell(&["show"])?, " blocks: "),
            _ => {
                let rules = ["ip", "netns", "exec", &lab.namespace(&self.name), "nft", "list", "ruleset"];
                (run(&rules)?, "counter packets ")
            }
        };
        let counts = shown.split(before).skip(1).filter_map(|rest| {
            let digits = rest.split(|digit: char| !digit.is_ascii_digit()).next();
            digits?.parse::<u64>().ok()
        });
        Ok(counts.sum())
    }

    /// Forgets all mappings.
    pub fn flush(&self, lab: &Lab) -> Result<()> {
        match self.player {
            Player::Tun(_) => self.tell(&["flush"]).map(drop),
            _ => run(&["ip", "netns", "exec", &lab.namespace(&self.name), "conntrack", "-F"]).map(drop),
        }
    }
}

/// Two homes, `a` and `b`, each with one host, and a second address for the SBC on the access network.
pub fn two_homes(lab: &mut Lab, [a, b]: [Player; 2], options: &[&str]) -> Result<[Home; 2]> {
    let second = Network::Access.address(SBC + 1) + "/24";
    run(&["ip", "-n", &lab.namespace("sbc"), "addr", "add", &second, "dev", Network::Access.name()])?;
    let mut home = |name, player, number| {
        let options = if matches!(player, Player::Tun(_)) { options } else { &[] };
        let mut home = Home::new(lab, name, player, number, options)?;
        home.host(lab).map(|_| home)
    };
    Ok([home("a", a, 20)?, home("b", b, 21)?])
}

/// Starts coturn as a STUN and TURN server on a host with these public addresses; user `lab`, password `lab`.
pub fn turn(lab: &Lab, host: &str, addresses: &[&str]) -> Result<Process> {
    let folder = lab.folder().display().to_string();
    let (pid, base) = (format!("{folder}/turn.pid"), format!("{folder}/turn.sqlite"));
    let mut argv = vec!["turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file", "stdout"];
    argv.extend(["--realm", "lab", "--lt-cred-mech", "--user", "lab:lab", "--pidfile", &pid, "--db", &base]);
    for address in addresses {
        argv.extend(["-L", address]);
    }
    let server = lab.start(host, "turn", &argv)?;
    server.says("SQLite DB connection success", Duration::from_secs(10))?;
    Ok(server)
}

/// The address of a home's router. Those that open ports do so only on an address that is not kept for documentation.
fn external(player: Player, number: u8) -> Ipv4Addr {
    let network = if matches!(player, Player::Upnp(_)) { 101 } else { 100 };
    Ipv4Addr::new(198, 51, network, number)
}

pub(crate) fn apply(namespace: &str, rules: &str) -> Result<()> {
    let mut nft = Command::new("ip")
        .args(["netns", "exec", namespace, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    nft.stdin.take().map_or(Ok(()), |mut input| input.write_all(rules.as_bytes()))?;
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// The program `nat`: beside the caller's own, or one folder above a test's.
fn program() -> Result<String> {
    let own = std::env::current_exe()?;
    let found =
        own.ancestors().skip(1).take(2).map(|folder: &Path| folder.join("nat")).find(|path| path.exists());
    found
        .map(|path| path.display().to_string())
        .ok_or_else(|| Failure("the program `nat` is not built: cargo build -p nat-lab".into()))
}
