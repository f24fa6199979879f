//! Two networks, access and core, as bridges in a namespace of their own; hosts hang on them by veth pairs.
//!
//! ```text
//!  phone behind NAT -- router --+                          +-- Kamailio, trunks
//!             phones -----------+-- access --[ SBC ]-- core +-- phones
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::id;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::capture::Capture;
use crate::phone::Kind;
use crate::process::{Process, run};
use crate::{Failure, Result};

/// One of the two networks. Their addresses share no byte sequence, so that a leak of one into the other shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// 198.51.100.0/24, where phones live.
    Access,
    /// 203.0.113.0/24, where the operator's core lives.
    Core,
}

impl Network {
    /// The address of a host by its number, 1 to 254.
    pub fn address(self, host: u8) -> String {
        match self {
            Network::Access => format!("198.51.100.{host}"),
            Network::Core => format!("203.0.113.{host}"),
        }
    }

    /// The IPv6 address of a host by its number: 2001:db8:a::/64 and 2001:db8:c::/64.
    pub fn address6(self, host: u8) -> String {
        match self {
            Network::Access => format!("2001:db8:a::{host:x}"),
            Network::Core => format!("2001:db8:c::{host:x}"),
        }
    }

    /// Its name, in the SBC's configuration too.
    pub fn name(self) -> &'static str {
        self.bridge()
    }

    fn bridge(self) -> &'static str {
        match self {
            Network::Access => "access",
            Network::Core => "core",
        }
    }
}

/// What hosts of a network take as theirs: the addresses beside the network's own belong to routers that open ports, which do so on
/// none that is kept for documentation.
pub(crate) const PREFIX: &str = "/23";

/// The SBC's host number on both networks, and the gateway of either.
pub const SBC: u8 = 1;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A laboratory: namespaces, the folder of its logs, all gone when it is dropped (the folder stays after a panic).
#[derive(Debug)]
pub struct Lab {
    tag: String,
    folder: PathBuf,
    hosts: Vec<String>,
    links: u32,
    is_kept: bool,
}

impl Lab {
    /// Says why no laboratory can be made here, if so: what is not installed, or that namespaces need root.
    pub fn impossible(programs: &[&str]) -> Option<String> {
        for program in ["ip", "nft", "tcpdump"].iter().chain(programs) {
            if *program == Kind::Softphone.program() {
                continue;
            }
            if *program == Kind::Pjsua.program() {
                if !crate::pjsua::python().exists() {
                    return Some(format!(
                        "PJSIP for Python is not in {} (`make install`)",
                        crate::pjsua::python().display()
                    ));
                }
                continue;
            }
            let found = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
            if !found.split(':').any(|folder| Path::new(folder).join(program).exists()) {
                return Some(format!("`{program}` is not installed (`make install` as root)"));
            }
        }
        let probe = format!("sbcprobe{}-{}", id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match run(&["ip", "netns", "add", &probe]) {
            Ok(_) => {
                let _ = run(&["ip", "netns", "del", &probe]);
                None
            }
            Err(failure) => Some(format!("network namespaces need root: {failure}")),
        }
    }

    /// Makes the two empty networks.
    pub fn new(name: &str) -> Result<Self> {
        let tag = format!("sbc{}x{}", id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let base = std::env::var_os("SBC_LAB_OUT").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = base.join(format!("{name}-{tag}"));
        fs::create_dir_all(&folder)?;
        let mut lab = Lab { tag, folder, hosts: Vec::new(), links: 0, is_kept: false };
        let switch = lab.add_namespace("switch")?;
        for network in [Network::Access, Network::Core] {
            run(&["ip", "-n", &switch, "link", "add", network.bridge(), "type", "bridge"])?;
            run(&["ip", "-n", &switch, "link", "set", network.bridge(), "up"])?;
        }
        let sbc = lab.add_namespace("sbc")?;
        for network in [Network::Access, Network::Core] {
            let addresses = [network.address(SBC) + PREFIX, network.address6(SBC) + "/64"];
            lab.plug(&sbc, network.bridge(), network, &addresses)?;
        }
        Ok(lab)
    }

    /// Where logs, captures and recordings of this laboratory are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its folder stays when it is gone.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    /// What the names of its namespaces begin with.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The full name of a host's namespace.
    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.tag)
    }

    /// Adds a host on one network, with the SBC as its default gateway (linphone believes to be offline without a
    /// default route; the SBC's namespace does not forward). Returns its address.
    pub fn host(&mut self, name: &str, network: Network, number: u8) -> Result<String> {
        let namespace = self.add_namespace(name)?;
        self.plug(&namespace, "eth0", network, &[network.address(number) + PREFIX])?;
        run(&["ip", "-n", &namespace, "route", "add", "default", "via", &network.address(SBC)])?;
        Ok(network.address(number))
    }

    /// Gives a host another address in the place of its own, as a change of networks does: for a moment it has none.
    pub fn readdress(&self, name: &str, network: Network, number: u8) -> Result<()> {
        let namespace = self.namespace(name);
        run(&["ip", "-n", &namespace, "-4", "addr", "flush", "dev", "eth0"])?;
        run(&["ip", "-n", &namespace, "addr", "add", &(network.address(number) + PREFIX), "dev", "eth0"])?;
        run(&["ip", "-n", &namespace, "route", "add", "default", "via", &network.address(SBC)]).map(drop)
    }

    /// Adds a host that has IPv6 alone. Returns its address.
    pub fn host6(&mut self, name: &str, network: Network, number: u8) -> Result<String> {
        let namespace = self.add_namespace(name)?;
        self.plug(&namespace, "eth0", network, &[network.address6(number) + "/64"])?;
        run(&["ip", "-n", &namespace, "route", "add", "default", "via", &network.address6(SBC)])?;
        Ok(network.address6(number))
    }

    /// Adds a host behind a router on the access network, which masquerades and forgets a UDP flow after `forgets`.
    /// The router drops what comes unasked, as home routers do. Returns the host's private address.
    pub fn host_behind_nat(&mut self, name: &str, router: u8, forgets: Duration) -> Result<String> {
        let (inside, outside) = (self.add_namespace(name)?, self.add_namespace(&format!("{name}-nat"))?);
        self.plug(&outside, "wan", Network::Access, &[Network::Access.address(router) + PREFIX])?;
        run(&[
            "ip", "link", "add", "eth0", "netns", &inside, "type", "veth", "peer", "name", "lan", "netns",
            &outside,
        ])?;
        run(&["ip", "-n", &inside, "addr", "add", "192.168.77.10/24", "dev", "eth0"])?;
        run(&["ip", "-n", &outside, "addr", "add", "192.168.77.1/24", "dev", "lan"])?;
        run(&["ip", "-n", &inside, "link", "set", "eth0", "up"])?;
        run(&["ip", "-n", &outside, "link", "set", "lan", "up"])?;
        run(&["ip", "-n", &inside, "route", "add", "default", "via", "192.168.77.1"])?;
        let rules = "table ip nat { chain post { type nat hook postrouting priority 100; oifname wan masquerade; }; \
            chain in { type filter hook input priority 0; iifname wan ct state established,related accept; \
            iifname wan drop; }; }";
        run(&["ip", "netns", "exec", &outside, "nft", rules])?;
        let seconds = forgets.as_secs().max(1);
        for key in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            self.sysctl(&outside, &format!("net.netfilter.{key}={seconds}"))?;
        }
        self.sysctl(&outside, "net.ipv4.ip_forward=1")?;
        Ok("192.168.77.10".into())
    }

    /// The UDP flows that the router of a host behind NAT knows.
    pub fn nat_flows(&self, name: &str) -> Result<String> {
        run(&["ip", "netns", "exec", &self.namespace(&format!("{name}-nat")), "conntrack", "-L", "-p", "udp"])
    }

    /// The router of a host behind NAT forgets all its flows, and gives those to come other ports, as it would after
    /// a restart.
    pub fn rebind_nat(&self, name: &str) -> Result<()> {
        let router = self.namespace(&format!("{name}-nat"));
        let rules = "flush chain ip nat post; \
            add rule ip nat post oifname wan meta l4proto udp masquerade to :40000-49999 random;";
        run(&["ip", "netns", "exec", &router, "nft", rules])?;
        run(&["ip", "netns", "exec", &router, "conntrack", "-F"]).map(drop)
    }

    /// Starts a program on a host; its log is `folder/label.log`.
    pub fn start(&self, host: &str, label: &str, argv: &[&str]) -> Result<Process> {
        self.start_with(host, label, argv, &[])
    }

    /// Starts a program on a host with environment variables added.
    pub fn start_with(
        &self,
        host: &str,
        label: &str,
        argv: &[&str],
        vars: &[(&str, &str)],
    ) -> Result<Process> {
        Process::start(&self.namespace(host), argv, vars, &self.folder.join(format!("{label}.log")))
    }

    /// Captures all that passes on one side of the SBC.
    pub fn capture(&self, network: Network) -> Result<Capture> {
        Capture::start(self, "sbc", network.bridge())
    }

    /// Captures all that passes a device of a host.
    pub fn capture_at(&self, host: &str, device: &str) -> Result<Capture> {
        Capture::start(self, host, device)
    }

    pub(crate) fn add_namespace(&mut self, host: &str) -> Result<String> {
        let namespace = self.namespace(host);
        run(&["ip", "netns", "add", &namespace])?;
        self.hosts.push(namespace.clone());
        run(&["ip", "-n", &namespace, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    pub(crate) fn plug(
        &mut self,
        namespace: &str,
        device: &str,
        network: Network,
        addresses: &[String],
    ) -> Result<()> {
        let (switch, port) = (self.namespace("switch"), format!("port{}", self.links));
        self.links += 1;
        run(&[
            "ip", "link", "add", device, "netns", namespace, "type", "veth", "peer", "name", &port, "netns",
            &switch,
        ])?;
        for address in addresses {
            // Without looking for duplicates, or an IPv6 address could not be bound for seconds.
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            run(&[&["ip", "-n", namespace, "addr", "add", address, "dev", device][..], nodad].concat())?;
        }
        run(&["ip", "-n", &switch, "link", "set", &port, "master", network.bridge(), "up"])?;
        run(&["ip", "-n", namespace, "link", "set", device, "up"]).map(drop)
    }

    pub(crate) fn sysctl(&self, namespace: &str, setting: &str) -> Result<()> {
        run(&["ip", "netns", "exec", namespace, "sysctl", "-qw", setting])
            .map(drop)
            .map_err(|failure| Failure(format!("{setting}: {failure}")))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.hosts {
            let _ = run(&["ip", "netns", "del", namespace]);
        }
        if !std::thread::panicking() && !self.is_kept {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
