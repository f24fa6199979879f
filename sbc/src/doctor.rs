//! What on this machine would hurt.

use std::fs;

use crate::config::Settings;

/// One finding: what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// It would cost calls.
    pub is_serious: bool,
    /// What and what to do.
    pub text: String,
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

fn open_files() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(u64::MAX)
}

/// Looks at the machine with a configuration in hand.
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |is_serious, text: String| findings.push(Finding { is_serious, text });
    let pairs: u64 = settings
        .relay
        .realms
        .iter()
        .map(|realm| u64::from(realm.ports.end() - realm.ports.start()).div_ceil(2))
        .sum();
    let calls = settings.plane.engine.limits.calls as u64;
    if let Some(least) = settings
        .relay
        .realms
        .iter()
        .map(|realm| u64::from(realm.ports.end() - realm.ports.start()).div_ceil(2))
        .min()
        && least < calls
    {
        find(
            false,
            format!(
                "media_ports: the smallest range holds {least} audio calls, limits.calls allows {calls}; widen the range or lower the limit"
            ),
        );
    }
    let (files, wanted) = (open_files(), 2 * 2 * calls.min(pairs) + 1000);
    if files < wanted {
        find(
            true,
            format!(
                "open files: {files} allowed, {wanted} needed for {} calls; set LimitNOFILE={wanted} or `ulimit -n {wanted}`",
                calls.min(pairs)
            ),
        );
    }
    if let Some(limit) =
        number("/proc/sys/net/core/rmem_max").filter(|limit| *limit < settings.plane.receive_buffer as u64)
    {
        let wanted = settings.plane.receive_buffer;
        find(
            false,
            format!(
                "net.core.rmem_max is {limit}: bursts of SIP over UDP may be lost; `sysctl -w net.core.rmem_max={wanted}`"
            ),
        );
    }
    if let (Some(first), Some(last)) = (number("/proc/sys/net/ipv4/ip_local_port_range"), ephemeral_end()) {
        for (realm, media) in settings.plane.engine.realms.iter().zip(&settings.relay.realms) {
            if u64::from(*media.ports.end()) >= first && u64::from(*media.ports.start()) <= last {
                find(
                    false,
                    format!(
                        "realm {}: media_ports overlap the ports {first}-{last} that other programs get by chance; `sysctl -w net.ipv4.ip_local_reserved_ports={}-{}`",
                        realm.name,
                        media.ports.start(),
                        media.ports.end()
                    ),
                );
            }
        }
    }
    let data = &settings.file.node.data;
    if let Err(error) = fs::create_dir_all(data).and_then(|()| fs::write(data.join(".doctor"), b"x")) {
        find(
            true,
            format!(
                "node.data {}: {error}; the journal needs a directory that this user may write",
                data.display()
            ),
        );
    } else {
        let _ = fs::remove_file(data.join(".doctor"));
    }
    for listener in &settings.plane.engine.listeners {
        if let Err(error) = std::net::UdpSocket::bind((listener.address.ip(), 0)) {
            find(
                true,
                format!(
                    "listener {}: {error}; the address is not this machine's (`ip address`)",
                    listener.address
                ),
            );
        }
    }
    findings
}

fn ephemeral_end() -> Option<u64> {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?.split_whitespace().nth(1)?.parse().ok()
}
