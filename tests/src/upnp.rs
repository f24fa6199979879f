//! A router that opens ports when its hosts ask for it: miniupnpd speaks UPnP IGD, NAT-PMP and PCP.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::home::apply;
use crate::{Lab, Process, Result};

/// The chains that it fills. Its source translation comes before the router's own, so that a host is seen at its open port.
const CHAINS: &str = "table inet filter {
  chain miniupnpd { }
  chain forward { type filter hook forward priority filter; jump miniupnpd; }
  chain prerouting_miniupnpd { }
  chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
  chain postrouting_miniupnpd { }
  chain postrouting { type nat hook postrouting priority srcnat - 1; jump postrouting_miniupnpd; }
}
";

/// Starts it on a router whose devices are `lan` and `wan`.
pub(crate) fn start(lab: &Lab, router: &str, external: Ipv4Addr) -> Result<Process> {
    apply(&lab.namespace(router), CHAINS)?;
    let folder = lab.folder().join(format!("upnp-{router}"));
    fs::create_dir_all(&folder)?;
    let (file, leases) = (folder.join("miniupnpd.conf"), folder.join("leases"));
    let configuration = format!(
        "ext_ifname=wan\next_ip={external}\nlistening_ip=lan\nipv6_disable=yes\nenable_natpmp=yes\nenable_upnp=yes\n\
         secure_mode=yes\nlease_file={}\nuuid=5f0ab2a4-6f5c-4b6e-9d3e-3b1f1d1a2c0d\n\
         allow 1024-65535 192.168.0.0/16 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
        leases.display()
    );
    fs::write(&file, configuration)?;
    let (file, pid) = (file.display().to_string(), folder.join("pid").display().to_string());
    let daemon =
        lab.start(router, &format!("upnp-{router}"), &["miniupnpd", "-d", "-f", &file, "-P", &pid])?;
    daemon.says("Listening for NAT-PMP/PCP traffic", Duration::from_secs(10))?;
    Ok(daemon)
}
