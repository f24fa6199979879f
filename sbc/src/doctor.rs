//! What on this machine would hurt: each finding says what, and what to do.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use sip_engine::io::Transport;
use sqlx::postgres::PgPool;

use crate::config::Settings;
use crate::store;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// It costs calls, now or soon.
    pub is_serious: bool,
    /// What and what to do.
    pub text: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn serious(&mut self, text: String) {
        self.0.push(Finding { is_serious: true, text });
    }

    fn note(&mut self, text: String) {
        self.0.push(Finding { is_serious: false, text });
    }
}

/// Looks at the machine with a configuration in hand. Changes nothing that stays.
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = Findings::default();
    pages(settings, &mut findings);
    ranges(settings, &mut findings);
    chosen_ports(settings, &mut findings);
    second_addresses(settings, &mut findings);
    let is_steered = steering(settings, &mut findings);
    open_files(settings, is_steered, &mut findings);
    buffers(settings, &mut findings);
    conntrack(settings, &mut findings);
    clock(&mut findings);
    disk(&settings.file.node.data, &mut findings);
    certificates(settings, &mut findings);
    // A running SBC holds its ports itself.
    if !is_running(&settings.file.node.data) {
        listeners(settings, &mut findings);
        media_ports(settings, &mut findings);
    }
    findings.0
}

/// Looks at the database: reachable, its schema as this version wants it, and its user no mightier than it must be.
pub async fn examine_database(settings: &Settings) -> Vec<Finding> {
    let mut findings = Findings::default();
    match settings.database_url().and_then(|url| store::pool(&url, 2)) {
        Err(text) => findings.serious(text),
        Ok(pool) => {
            if let Err(error) = database(&pool, &mut findings).await {
                findings.serious(format!("database: {}", store::trouble::diagnose(&pool, &error).await));
            }
        }
    }
    findings.0
}

async fn database(pool: &PgPool, findings: &mut Findings) -> Result<(), sqlx::Error> {
    let powers = store::powers(pool).await?;
    let user = &powers.user;
    let excess = [
        (powers.is_superuser, "is a superuser"),
        (powers.owns_tables && !powers.is_superuser, "owns tables"),
        (powers.may_create && !powers.is_superuser, "may create tables"),
    ];
    let excess: Vec<&str> = excess.iter().filter(|(has, _)| *has).map(|(_, what)| *what).collect();
    if !excess.is_empty() {
        findings.serious(format!(
            "database.url: {user} {}: whoever breaks into this program could drop its records; give it a user that only runs it (`CREATE USER sbc_node PASSWORD '...' IN ROLE sbc_runtime`), and name the owner to `sbc migrate --owner` alone",
            excess.join(" and ")
        ));
    }
    match store::missing_migrations(pool).await {
        Ok(0) => {}
        Ok(missing) => {
            findings.serious(format!("database: {missing} migrations are missing; run `sbc migrate`"));
        }
        // Without its role it may not even read which there are.
        Err(_) if !powers.is_runtime => {}
        Err(error) => return Err(error),
    }
    if !powers.is_runtime && excess.is_empty() {
        findings.serious(format!(
            "database.url: {user} may not what the SBC must; `GRANT sbc_runtime TO {user}`"
        ));
    }
    Ok(())
}

fn pages(settings: &Settings, findings: &mut Findings) {
    let http = &settings.file.http;
    if !http.listen.ip().is_loopback() && !http.exposed {
        findings.serious(format!(
            "http.listen {}: other machines can read the metrics and health of this node, and nothing asks who they are; listen on 127.0.0.1, or say `exposed = true` in [http] and let a firewall choose",
            http.listen
        ));
    }
}

/// Programs that ask for any port, as every client does, get one of these: fewer than this run out while a host is busy.
const CHOSEN_PORTS: usize = 4096;

fn chosen_ports(settings: &Settings, findings: &mut Findings) {
    let Some((low, high)) = ephemeral_ports() else { return };
    let reserved = reserved_ports();
    let is_kept = |port: u16| {
        reserved.iter().any(|(from, to)| (*from..=*to).contains(&port))
            || settings.relay.steering
                && settings.relay.realms.iter().any(|realm| realm.ports.contains(&port))
    };
    let left = (low..=high).filter(|port| !is_kept(*port)).count();
    let text = format!(
        "{left} of the ports {low}-{high} are left for programs that ask for any port (net.ipv4.ip_local_reserved_ports, and media_ports where they are steered); choose media_ports outside of them, or widen net.ipv4.ip_local_port_range"
    );
    match left {
        0..1024 => findings.serious(text),
        1024..CHOSEN_PORTS => findings.note(text),
        _ => {}
    }
}

/// Audio calls that a range of ports holds: each takes an even and an odd port in its realm.
fn pairs(ports: &RangeInclusive<u16>) -> u64 {
    u64::from(*ports.end()).saturating_add(1).saturating_sub(u64::from(*ports.start())) / 2
}

fn ranges(settings: &Settings, findings: &mut Findings) {
    let calls = settings.plane.engine.limits.calls as u64;
    let ephemeral = ephemeral_ports();
    for (realm, media) in settings.plane.engine.realms.iter().zip(&settings.relay.realms) {
        let (first, last) = (*media.ports.start(), *media.ports.end());
        let held = pairs(&media.ports).saturating_mul(media.addresses.len().max(1) as u64);
        if held < calls {
            findings.note(format!(
                "realm {}: media_ports {first}-{last} hold {held} audio calls, limits.calls allows {calls}; widen the range or lower the limit",
                realm.name
            ));
        }
        if let Some((low, high)) = ephemeral.filter(|(low, high)| first <= *high && last >= *low)
            && !reserved_ports().iter().any(|(from, to)| *from <= first.max(low) && last.min(high) <= *to)
        {
            findings.note(format!(
                "realm {}: media_ports overlap the ports {low}-{high} that other programs get by chance; `sysctl -w net.ipv4.ip_local_reserved_ports={first}-{last}`",
                realm.name
            ));
        }
    }
}

/// A NAT is learnt by moving media to a second address.
fn second_addresses(settings: &Settings, findings: &mut Findings) {
    let Some(release) = &settings.relay.sessions.release else { return };
    for (index, realm) in settings.plane.engine.realms.iter().enumerate() {
        let may_leave = (0..settings.relay.realms.len())
            .any(|other| release.between(index as u16, other as u16).is_some());
        let addresses = settings.relay.realms.get(index).map_or(0, |media| media.addresses.len());
        if may_leave && addresses < 2 {
            findings.note(format!(
                "realm {}: release is allowed, but with one address in `media` no NAT can be learnt: its phones behind NATs stay on the relay; add a second address",
                realm.name
            ));
        }
    }
}

/// Whether the ports of a media address can share a socket here.
fn steering(settings: &Settings, findings: &mut Findings) -> bool {
    let relay = &settings.relay;
    if !relay.steering {
        return false;
    }
    if let Err(reason) = media_relay::steering_works(&relay.realms) {
        findings.note(format!(
            "media ports can't be steered: {reason}. Each opens a socket of its own then, and a call costs three times the memory and half as much again per packet; or say media.steering = false"
        ));
        return false;
    }
    true
}

fn open_files(settings: &Settings, is_steered: bool, findings: &mut Findings) {
    let pairs: u64 = settings.relay.realms.iter().map(|realm| pairs(&realm.ports)).sum();
    let calls = (settings.plane.engine.limits.calls as u64).min(pairs);
    let limits = &settings.file.limits;
    let connections = limits.connections.saturating_add(limits.connections_unproven) as u64;
    // A call has four media ports: without steering a file each.
    let wanted =
        connections.saturating_add(1000).saturating_add(if is_steered { 0 } else { calls.saturating_mul(4) });
    // `serve` raises the soft limit by itself.
    if let Some(allowed) = getrlimit(Resource::Nofile).maximum
        && allowed < wanted
    {
        findings.serious(format!(
            "open files: {allowed} allowed, {wanted} needed for {calls} calls and {connections} connections; set LimitNOFILE={wanted} or `ulimit -Hn {wanted}`"
        ));
    }
}

fn buffers(settings: &Settings, findings: &mut Findings) {
    let wanted = settings.plane.receive_buffer;
    if let Some(limit) = number("/proc/sys/net/core/rmem_max").filter(|limit| *limit < wanted as u64) {
        findings.note(format!(
            "net.core.rmem_max is {limit}: bursts of SIP over UDP may be lost; `sysctl -w net.core.rmem_max={wanted}`"
        ));
    }
}

fn conntrack(settings: &Settings, findings: &mut Findings) {
    let limit = number("/proc/sys/net/netfilter/nf_conntrack_max");
    let known = number("/proc/sys/net/netfilter/nf_conntrack_count");
    let calls = settings.plane.engine.limits.calls as u64;
    // RTP and RTCP on both sides.
    if let (Some(limit), Some(1..)) = (limit, known)
        && limit < calls.saturating_mul(4)
    {
        findings.note(format!(
            "connection tracking is on and holds {limit} flows, {calls} calls make {}: a full table drops packets; exempt the media ports (`notrack` in a raw prerouting and output chain) or `sysctl -w net.netfilter.nf_conntrack_max={}`",
            calls.saturating_mul(4),
            calls.saturating_mul(8)
        ));
    }
}

/// Records and certificates go by the wall clock.
fn clock(findings: &mut Findings) {
    // 2025-01-01: nothing of this program is older.
    let is_behind =
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() < Duration::from_secs(1_735_689_600);
    if is_behind {
        findings.serious("the wall clock is years behind: call records get wrong times and certificates are refused; set it, and keep it with chrony or systemd-timesyncd".to_owned());
    }
    let asked = std::process::Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .output();
    if asked.is_ok_and(|answer| answer.status.success() && answer.stdout.starts_with(b"no")) {
        findings.note("the wall clock is not synchronised: call records of several machines won't agree; run chrony or systemd-timesyncd".to_owned());
    }
}

fn disk(data: &Path, findings: &mut Findings) {
    let probe = data.join(".doctor");
    if let Err(error) = fs::create_dir_all(data).and_then(|()| fs::write(&probe, b"x")) {
        findings.serious(format!(
            "node.data {}: {error}; the journal needs a directory that this user may write, with free space",
            data.display()
        ));
        return;
    }
    let _ = fs::remove_file(probe);
    let Ok(system) = rustix::fs::statvfs(data) else { return };
    let free = system.f_bavail.saturating_mul(system.f_frsize) >> 20;
    let text = format!(
        "node.data {}: {free} MiB free; the journal holds about 1.5 KiB a call while the database is away, and a full disk puts records at risk: free some space",
        data.display()
    );
    match free {
        0..256 => findings.serious(text),
        256..2048 => findings.note(text),
        _ => {}
    }
}

fn certificates(settings: &Settings, findings: &mut Findings) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    for realm in &settings.file.realm {
        let Some(path) = &realm.get_ref().certificate else { continue };
        let Some(expires) = expiry(path) else { continue };
        let days = expires.saturating_sub(now).div_euclid(86_400);
        let path = path.display();
        if days < 0 {
            findings.serious(format!(
                "certificate {path} expired {} days ago: phones refuse TLS; renew it and send SIGHUP",
                days.unsigned_abs()
            ));
        } else if days < 21 {
            findings.note(format!("certificate {path} expires in {days} days; renew it and send SIGHUP"));
        }
    }
}

/// When the first certificate of a PEM file ends, seconds since the Unix epoch.
fn expiry(path: &Path) -> Option<i64> {
    let text = fs::read(path).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text).ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.timestamp())
}

fn listeners(settings: &Settings, findings: &mut Findings) {
    let http = (Transport::Tcp, settings.file.http.listen);
    let sip = settings.plane.engine.listeners.iter().map(|listener| (listener.transport, listener.address));
    for (transport, address) in sip.chain([http]) {
        let bound = match transport {
            Transport::Udp => std::net::UdpSocket::bind(address).map(drop),
            Transport::Tcp | Transport::Tls => std::net::TcpListener::bind(address).map(drop),
        };
        let Err(error) = bound else { continue };
        let cure = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another program holds the port (`ss -lnptu`)",
            std::io::ErrorKind::AddrNotAvailable => "the address is not this machine's (`ip address`)",
            std::io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
            _ => "see `ip address` and `ss -lnptu`",
        };
        findings.serious(format!("listener {} {address}: {error}; {cure}", transport.via_token()));
    }
}

fn media_ports(settings: &Settings, findings: &mut Findings) {
    let taken = udp_sockets();
    for (realm, media) in settings.plane.engine.realms.iter().zip(&settings.relay.realms) {
        for address in &media.addresses {
            if let Err(error) = std::net::UdpSocket::bind((address.bind, 0)) {
                findings.serious(format!(
                    "realm {}: media address {}: {error}; it is not this machine's (`ip address`)",
                    realm.name, address.bind
                ));
                continue;
            }
            let held = taken.iter().filter(|socket| {
                media.ports.contains(&socket.port())
                    && (socket.ip().is_unspecified() || socket.ip() == address.bind)
            });
            let held = held.count();
            if held > 0 {
                findings.note(format!(
                    "realm {}: other programs hold {held} of the media_ports of {} (`ss -lnpu`); they are passed over, or choose another range",
                    realm.name, address.bind
                ));
            }
        }
    }
}

/// Whether a process holds the journal.
fn is_running(data: &Path) -> bool {
    let lock = fs::File::open(data.join("journal/lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

fn ephemeral_ports() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn reserved_ports() -> Vec<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    ranges.collect()
}

/// The local addresses of all UDP sockets in this network namespace.
fn udp_sockets() -> Vec<SocketAddr> {
    ["/proc/net/udp", "/proc/net/udp6"]
        .into_iter()
        .flat_map(|path| {
            fs::read_to_string(path).unwrap_or_default().lines().filter_map(socket).collect::<Vec<_>>()
        })
        .collect()
}

/// A line of /proc/net/udp: `sl local_address ...`, the address as words of 32 bits in the machine's byte order.
fn socket(line: &str) -> Option<SocketAddr> {
    let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8)
        .map(|word| {
            let digits = address.get(word.saturating_mul(8)..)?.get(..8)?;
            Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
        })
        .collect();
    let ip: IpAddr = match words?.concat().as_slice() {
        [a, b, c, d] => Ipv4Addr::new(*a, *b, *c, *d).into(),
        bytes => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &str, data: &Path) -> Settings {
        let text = format!(
            "[node]\ndata = \"{}\"\n[database]\nurl = \"postgres:///sbc\"\n[http]\nlisten = \"127.0.0.1:0\"\n[limits]\ncalls = 100\n[[realm]]\nname = \"access\"\n\
             authentication = \"open\"\nmedia = [\"127.0.0.1\"]\n{more}",
            data.display()
        );
        Settings::parse(&text, Path::new("sbc.toml")).unwrap()
    }

    fn serious(settings: &Settings) -> Vec<String> {
        examine(settings)
            .into_iter()
            .filter(|finding| finding.is_serious)
            .map(|finding| finding.text)
            .collect()
    }

    #[test]
    fn a_port_that_another_program_holds_is_named_and_a_free_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let settings = settings(&format!("listen = [\"udp:127.0.0.1:{port}\"]\n"), directory.path());
        let found = serious(&settings);
        assert!(found.len() == 1 && found[0].contains("another program holds the port"), "{found:?}");
        drop(other);
        assert_eq!(serious(&settings), Vec::<String>::new());
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let found = serious(&settings("listen = [\"udp:192.0.2.77:5060\"]\n", directory.path()));
        assert!(found.len() == 1 && found[0].contains("not this machine's"), "{found:?}");
    }

    #[test]
    fn media_ports_that_others_hold_or_that_are_too_few_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port().clamp(1034, 65_000);
        let more = format!("listen = [\"udp:127.0.0.1:0\"]\nmedia_ports = \"{}-{}\"\n", port - 10, port + 10);
        let found = examine(&settings(&more, directory.path()));
        let has = |what: &str| found.iter().any(|finding| finding.text.contains(what));
        assert!(has("of the media_ports") && has("hold 10 audio calls"), "{found:?}");
    }

    #[test]
    fn a_data_directory_that_cannot_be_written_is_serious() {
        let settings = settings("listen = [\"udp:127.0.0.1:0\"]\n", Path::new("/proc/nothing"));
        assert!(serious(&settings).iter().any(|text| text.contains("node.data")));
    }

    #[test]
    fn a_certificate_about_to_expire_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (key, certificate) = (directory.path().join("key.pem"), directory.path().join("certificate.pem"));
        let made = |days: &str| {
            let arguments =
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=sbc -days";
            let status = std::process::Command::new("openssl")
                .args(arguments.split(' '))
                .args([days, "-keyout"])
                .arg(&key)
                .arg("-out")
                .arg(&certificate)
                .stderr(std::process::Stdio::null())
                .status();
            assert!(status.unwrap().success());
            let more = format!(
                "listen = [\"tls:127.0.0.1:0\"]\ncertificate = \"{}\"\nkey = \"{}\"\n",
                certificate.display(),
                key.display()
            );
            let found = examine(&settings(&more, directory.path()));
            found.iter().any(|finding| finding.text.contains("expires in"))
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        assert!(made("10"));
        assert!(!made("300"));
    }

    #[test]
    fn sockets_of_both_families_are_read() {
        let line = |address: &str| socket(&format!("  12: {address} 00000000:0000 07"));
        assert_eq!(line("0100007F:13C4"), Some("127.0.0.1:5060".parse().unwrap()));
        assert_eq!(line("00000000000000000000000001000000:13C4"), Some("[::1]:5060".parse().unwrap()));
        assert_eq!(socket("  sl  local_address rem_address"), None);
    }
}
