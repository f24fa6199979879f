//! What serde can't see: values that contradict each other or make no sense.

use std::collections::HashMap;
use std::net::IpAddr;

use toml::Spanned;

use super::file::{File, RealmFile, RegistrarKind};
use super::release_file::ReleaseKind;
use super::text::{read_listener, read_media_address, read_range};
use sip_engine::io::RealmId;
use sip_engine::passing::{Barred, Naming, naming};

/// Offset in the file, and what is wrong with how to mend it.
type Mistake = (usize, String);

/// Checks the file as a whole; the values of single entries are checked where they are read.
pub(super) fn whole(file: &File) -> Result<(), Mistake> {
    if file.realm.is_empty() {
        return Err((0, "no realm: give at least one `[[realm]]`".to_owned()));
    }
    if file.database.url.is_empty() {
        return Err((
            0,
            "database.url is empty: write `postgres://user@host/name`, `$NAME` or `@/path`".to_owned(),
        ));
    }
    for (key, threads) in
        [("media.workers", file.media.workers), ("signalling.shards", file.signalling.shards)]
    {
        if !(1..=256).contains(&threads) {
            return Err((0, format!("{key} is {threads}: write a number of threads, 1 to 256")));
        }
    }
    for (name, value) in [
        ("calls", file.limits.calls),
        ("transactions", file.limits.transactions),
        ("bindings_per_aor", file.limits.bindings_per_aor),
        ("connections", file.limits.connections),
        ("connections_unproven", file.limits.connections_unproven),
        ("connections_per_source", file.limits.connections_per_source),
        ("connections_dialled", file.limits.connections_dialled),
        ("handshakes_per_second", file.limits.handshakes_per_second),
    ] {
        if value == 0 {
            return Err((
                0,
                format!("limits.{name} is 0: nothing would be served; write 1 or more, or leave it out"),
            ));
        }
    }
    if file.limits.connections_unproven > file.limits.connections {
        let what = "limits.connections_unproven is above limits.connections: strangers could take all places; write less";
        return Err((0, what.to_owned()));
    }
    if let Some(discovery) = &file.discovery {
        let is_whole = |ipv4: bool| {
            let own: Vec<_> = discovery.addresses.iter().filter(|one| one.is_ipv4() == ipv4).collect();
            matches!(own[..], []) || matches!(own[..], [one, other] if one != other)
        };
        let [port, other_port] = discovery.ports;
        if discovery.addresses.is_empty() || !is_whole(true) || !is_whole(false) || port == other_port {
            let what = "discovery: RFC 5780 needs two different addresses of one family and two different ports; for the other family write two more";
            return Err((0, what.to_owned()));
        }
    }
    for entry in &file.realm {
        realm(entry)?;
    }
    listeners(file)?;
    media_ports(file)
}

fn realm(entry: &Spanned<RealmFile>) -> Result<(), Mistake> {
    let (at, realm) = (entry.span().start, entry.get_ref());
    let name = &realm.name;
    let mistake = |what: String| Err((at, format!("realm `{name}`: {what}")));
    if name.is_empty() {
        return Err((at, "a realm without a name: records, metrics and routes need one".to_owned()));
    }
    if realm.media_dscp > 63 {
        let dscp = realm.media_dscp;
        return mistake(format!(
            "media_dscp is {dscp}: it has six bits (RFC 2474); write 0 to 63, 46 is expedited forwarding"
        ));
    }
    if realm.media.is_empty() {
        return mistake("no media address: give `media` at least one, or calls have no sound".to_owned());
    }
    if realm.lan_release && matches!(realm.release, ReleaseKind::Anchor | ReleaseKind::Video) {
        return mistake(
            "`lan_release` does nothing while `release` is \"anchor\" or \"video\": write release = \"allow\", or remove it".to_owned(),
        );
    }
    if realm.digest.is_empty() {
        return mistake("`digest` is empty: write [\"md5\"], or leave it out".to_owned());
    }
    pass_headers(realm)?;
    if (1..90).contains(&realm.session_seconds) {
        return mistake(format!(
            "session_seconds is {}: RFC 4028 allows no less than 90; 0 means none",
            realm.session_seconds
        ));
    }
    for (key, value) in [
        ("nat_expires_seconds", realm.nat_expires_seconds),
        ("max_expires_seconds", realm.max_expires_seconds),
    ] {
        if value < 5 {
            return mistake(format!("{key} is {value}: phones would register all the time; write 5 or more"));
        }
    }
    if realm.registrar != RegistrarKind::Forward
        && let Some(key) = realm.forward_to.as_ref().or(realm.forward_realm.as_ref())
    {
        let what =
            "`forward_to` and `forward_realm` are for registrar = \"forward\": set that, or remove them";
        return Err((key.span().start, what.to_owned()));
    }
    if realm.client_ca.is_some() && realm.certificate.is_none() {
        return mistake("`client_ca` needs `certificate` and `key`: set them, or remove it".to_owned());
    }
    Ok(())
}

/// Each entry names what can pass, and what would not pass without it.
fn pass_headers(realm: &RealmFile) -> Result<(), Mistake> {
    for entry in &realm.pass_headers {
        let name = entry.get_ref();
        let mistake =
            |what: String| Err((entry.span().start, format!("realm `{}`: pass_headers: {what}", realm.name)));
        let text = name.strip_suffix('*').unwrap_or(name);
        // A token (RFC 3261 §25.1), but for the star, which is ours.
        if text.is_empty()
            || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.!%_+`'~".contains(&byte))
        {
            return mistake(format!(
                "`{name}` is no header's name: write one like `P-Charge-Info`, or `P-*` for all that begin so"
            ));
        }
        if realm.trusted {
            return mistake(format!(
                "`{name}` does nothing where trusted = true, for what the SBC does not understand passes from there anyway: remove one of the two"
            ));
        }
        let why = match naming(name) {
            Naming::Lets => continue,
            Naming::Idle => "passes from everybody anyway: remove it",
            Naming::Vain(Barred::Leg) => {
                "cannot pass, for the SBC ends it and writes the other side's own: remove it"
            }
            Naming::Vain(Barred::Credentials) => {
                "cannot pass, for credentials and challenges are between one party and the SBC: remove it"
            }
            Naming::Vain(Barred::Identity) => {
                "cannot pass, for identities pass between two trusted realms only: write trusted = true for both if what this one asserts is to be believed, or remove it"
            }
        };
        return mistake(format!("`{name}` {why}"));
    }
    Ok(())
}

fn listeners(file: &File) -> Result<(), Mistake> {
    let mut seen = HashMap::new();
    for entry in &file.realm {
        for text in &entry.get_ref().listen {
            // What can't be read is told where it is read.
            let Ok(listener) = read_listener(text.get_ref(), RealmId(0)) else { continue };
            let is_datagram = !listener.transport.is_reliable();
            if listener.address.port() != 0
                && let Some(other) = seen.insert((listener.address, is_datagram), &entry.get_ref().name)
            {
                let what = format!(
                    "`{}` is listened on already, in realm `{other}`: choose another port or address",
                    text.get_ref()
                );
                return Err((text.span().start, what));
            }
        }
    }
    Ok(())
}

/// Two realms may share an address, and then not its ports.
fn media_ports(file: &File) -> Result<(), Mistake> {
    let mut seen: Vec<(IpAddr, std::ops::RangeInclusive<u16>, &str)> = Vec::new();
    for entry in &file.realm {
        let realm = entry.get_ref();
        let Ok(ports) = read_range(realm.media_ports.get_ref()) else { continue };
        for text in &realm.media {
            let Ok(address) = read_media_address(text.get_ref()) else { continue };
            let overlaps = seen.iter().find(|(ip, other, _)| {
                *ip == address.bind && other.start() <= ports.end() && ports.start() <= other.end()
            });
            if let Some((_, _, other)) = overlaps {
                let what = format!(
                    "media_ports of realm `{}` overlap those of realm `{other}` on {}: give each a range of its own",
                    realm.name, address.bind
                );
                return Err((text.span().start, what));
            }
            seen.push((address.bind, ports.clone(), &realm.name));
        }
    }
    Ok(())
}
