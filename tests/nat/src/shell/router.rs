//! The network namespace round the device: which packets go through it.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::{Command, Stdio};

use ipnet::IpNet;

/// The routing table that leads to the device.
const TABLE: &str = "100";

/// The router's devices and what is behind them.
#[derive(Debug, Clone)]
pub(crate) struct Router {
    /// Towards the hosts.
    pub(crate) lan: String,
    /// Towards the public network.
    pub(crate) wan: String,
    /// The TUN device.
    pub(crate) tun: String,
    /// The networks behind `lan`.
    pub(crate) inside: Vec<IpNet>,
}

impl Router {
    /// Whether an address is behind this router.
    pub(crate) fn is_inside(&self, address: IpAddr) -> bool {
        self.inside.iter().any(|network| network.contains(&address))
    }

    /// Makes the namespace send all UDP that comes from inside or from outside to the device, and what comes out of it
    /// to where it is addressed. The external address stays the router's own, so that it answers ARP and TCP as ever;
    /// TCP is masqueraded by the kernel.
    pub(crate) fn set_up(&self) -> io::Result<()> {
        run(&["ip", "link", "set", &self.tun, "up"])?;
        for device in ["all", &self.lan, &self.wan, &self.tun] {
            set(&format!("ipv4/conf/{device}/rp_filter"), "0")?;
        }
        // What has been translated carries the router's own address as its source.
        set(&format!("ipv4/conf/{}/accept_local", self.tun), "1")?;
        set("ipv4/ip_forward", "1")?;
        self.rules("-4")?;
        if self.inside.iter().any(|network| network.addr().is_ipv6()) {
            set("ipv6/conf/all/forwarding", "1")?;
            self.rules("-6")?;
        }
        nft(&format!(
            "table ip shell {{\n  chain raw {{\n    type filter hook prerouting priority raw;\n    meta l4proto udp notrack\n  }}\n  \
             chain postrouting {{\n    type nat hook postrouting priority srcnat;\n    oifname {} masquerade\n  }}\n}}\n",
            self.wan
        ))
    }

    /// The rules come before the local table, which would take what is sent to the external address.
    fn rules(&self, family: &str) -> io::Result<()> {
        run(&["ip", family, "route", "add", "default", "dev", &self.tun, "table", TABLE])?;
        run(&["ip", family, "rule", "add", "pref", "10", "lookup", "local"])?;
        for network in self.inside.iter().filter(|network| network.addr().is_ipv6() == (family == "-6")) {
            // To the router itself.
            run(&["ip", family, "rule", "add", "pref", "1", "to", &network.to_string(), "lookup", "local"])?;
        }
        for device in [&self.lan, &self.wan] {
            let udp =
                ["ip", family, "rule", "add", "pref", "2", "iif", device, "ipproto", "udp", "lookup", TABLE];
            run(&udp)?;
        }
        run(&["ip", family, "rule", "del", "pref", "0"])
    }
}

fn run(argv: &[&str]) -> io::Result<()> {
    let [program, arguments @ ..] = argv else { return Ok(()) };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("`{}`: {}", argv.join(" "), said.trim())))
}

fn nft(rules: &str) -> io::Result<()> {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().map_or(Ok(()), |mut input| input.write_all(rules.as_bytes()))?;
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("nft refused the rules")) }
}

fn set(key: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{key}");
    fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}
