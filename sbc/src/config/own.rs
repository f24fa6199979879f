//! What this node has of its own, and what the peers of each realm may name beside it: for both planes.

use std::net::SocketAddr;

use martian::{Own, Realm, Rules};
use media_core::latch::Latching;
use media_relay::RealmMedia;
use sip_engine::config::Listener;

use super::file::{File, LatchingKind};

/// Listeners and media ranges are bound here or advertised; realms are in the order of the file.
pub(super) fn rules(file: &File, listeners: &[Listener], media: &[RealmMedia]) -> Rules {
    let mut own = Own::default();
    own.listener(file.http.listen);
    for listener in listeners {
        own.listener(listener.address);
        own.listener(listener.advertised);
    }
    for realm in media {
        for address in &realm.addresses {
            own.range(address.bind, realm.ports.clone());
            own.range(address.advertised, realm.ports.clone());
        }
    }
    if let Some(discovery) = &file.discovery {
        for (address, port) in
            discovery.addresses.iter().flat_map(|one| discovery.ports.map(|port| (*one, port)))
        {
            own.listener(SocketAddr::new(address, port));
        }
    }
    let realms = file.realm.iter().enumerate().map(|(index, entry)| {
        let mut signalling = listeners.iter().filter(|listener| usize::from(listener.realm.0) == index);
        let mut relay = media.get(index).into_iter().flat_map(|media| &media.addresses);
        Realm {
            is_loopback: signalling.any(|listener| listener.address.ip().is_loopback())
                || relay.any(|address| address.bind.is_loopback()),
            has_local_peers: entry.get_ref().local_peers,
        }
    });
    Rules::new(own, realms.collect())
}

impl From<LatchingKind> for Latching {
    fn from(kind: LatchingKind) -> Self {
        match kind {
            LatchingKind::Strict => Latching::Strict,
            LatchingKind::Host => Latching::Host,
            LatchingKind::Any => Latching::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use martian::Unfit;

    use crate::config::Settings;

    #[test]
    fn every_listener_and_media_port_is_ours_and_loopback_is_for_realms_that_are_there() {
        let text = "[database]\nurl = \"postgres://x\"\n[http]\nlisten = \"192.0.2.1:8080\"\n[discovery]\naddresses = [\"192.0.2.1\", \"192.0.2.7\"]\n\
            [[realm]]\nname = \"a\"\nauthentication = \"open\"\nlisten = [\"udp:10.0.0.1:5060=192.0.2.1:5070\"]\nmedia = [\"10.0.0.1=192.0.2.1\"]\n\
            [[realm]]\nname = \"b\"\nauthentication = \"open\"\nlocal_peers = true\nlisten = [\"udp:127.0.0.2:5060\"]\nmedia = [\"127.0.0.2\"]\nmedia_ports = \"30000-39999\"\n";
        let settings = Settings::parse(text, Path::new("x.toml")).unwrap();
        let judge =
            |realm, address: &str| settings.relay.sessions.addresses.judge(realm, address.parse().unwrap());
        for address in [
            "10.0.0.1:5060",
            "192.0.2.1:5070",
            "192.0.2.1:8080",
            "192.0.2.7:3479",
            "10.0.0.1:20000",
            "192.0.2.1:29999",
            "192.0.2.1:40000",
        ] {
            assert_eq!(judge(0, address), Err(Unfit::Ours), "{address}");
        }
        assert_eq!(judge(0, "127.0.0.9:4000"), Err(Unfit::Loopback));
        assert_eq!(judge(1, "127.0.0.9:4000"), Ok(()));
        assert_eq!(judge(1, "192.0.2.1:40000"), Ok(()), "its peers are on this machine");
        assert_eq!(judge(1, "127.0.0.2:30000"), Err(Unfit::Ours));
    }
}
