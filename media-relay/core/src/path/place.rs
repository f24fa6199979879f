//! Where the two parties of a call are, and which way between them is worth a try.
//!
//! A plain phone sends to one place, so a try is the move itself, and one that fails is heard as silence. It is made only where both
//! NATs, as far as they were observed, let it succeed; what was not observed is never used, whatever a description claims.
//! **What cannot be is never tried**: addresses of our own, which a proxy behind us has led back to us; addresses that mean nothing
//! beyond one host or link; another family; and a local network from elsewhere, unless the operator says that it is routed.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use seam::path::{Mapping, Stay, Way};
use serde::{Deserialize, Serialize};

/// What is known of one party's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where its RTP comes from.
    pub observed: SocketAddr,
    /// Where its description says it is.
    pub signalled: Option<SocketAddr>,
    /// The host of its Contact, if it is an address.
    pub contact: Option<IpAddr>,
    /// Its NAT.
    pub mapping: Mapping,
    /// The number of its realm.
    pub realm: u16,
    /// The far party must not send to where it was observed ([`martian`]): a port of ours, as where a call comes back to us through a
    /// proxy or PBX, or an address of this machine.
    pub is_unfit: bool,
}

/// What an operator has configured about networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// Groups of prefixes whose hosts reach each other without a NAT.
    pub routable: Vec<Vec<IpNet>>,
    /// Public addresses of carriers' NATs: many homes behind each, so that sharing one says nothing.
    pub carrier_nat: Vec<IpNet>,
    /// Two phones of one LAN may be pointed at each other's local address.
    pub lan_release: bool,
    /// What [`choose`] finds between the two realms works: where reports cannot prove it, none need to.
    pub certain: bool,
}

impl Place {
    /// Unmapped, or mapped as far as is known.
    fn is_translated(&self) -> bool {
        self.signalled != Some(self.observed)
    }

    /// The mapping to reckon with.
    pub fn effective_mapping(&self) -> Mapping {
        if self.is_translated() { self.mapping } else { Mapping::None }
    }

    /// Its local address, if Contact and description agree on one.
    fn local(&self) -> Option<SocketAddr> {
        let signalled = self.signalled?;
        (self.contact == Some(signalled.ip())).then_some(signalled)
    }
}

/// The way worth a try between two parties.
pub fn choose(places: &[Place; 2], networks: &Networks) -> Result<Way, Stay> {
    let [one, other] = places;
    if one.is_unfit || other.is_unfit {
        return Err(Stay::Unfit);
    }
    if one.observed.is_ipv4() != other.observed.is_ipv4() {
        return Err(Stay::Family);
    }
    if let (Some(here), Some(there)) = (one.local(), other.local())
        && here.is_ipv4() == there.is_ipv4()
        && are_routable(here.ip(), there.ip(), networks)
        && here.ip() != there.ip()
    {
        return Ok(Way::Local([here, there]));
    }
    if one.observed.ip() == other.observed.ip() {
        return share_a_lan(one, other, networks).map(Way::Local).ok_or(Stay::SharedAddress);
    }
    if are_apart(one, other, networks) {
        return Err(Stay::Unroutable);
    }
    let mappings = [one.effective_mapping(), other.effective_mapping()];
    if mappings.iter().any(|mapping| matches!(mapping, Mapping::Dependent { .. })) {
        return Err(Stay::DependentMapping);
    }
    let unknown = mappings.map(|mapping| mapping == Mapping::Unknown);
    if unknown != [false, false] {
        return Ok(Way::Learn(unknown));
    }
    Ok(Way::Observed([one.observed, other.observed]))
}

/// Whether one of them is in a network that others have as well, and the other is not in it: the relay reaches both, they need not reach
/// each other. Of two local networks of one realm as much is known as of two public ones: the relay stands in both.
fn are_apart(one: &Place, other: &Place, networks: &Networks) -> bool {
    let [here, there] = [one, other].map(|place| place.observed.ip());
    let is_between = match [is_local(here), is_local(there)] {
        [false, false] => false,
        [true, true] => one.realm != other.realm,
        _ => true,
    };
    is_between && !networks.certain && !are_routable(here, there, networks)
}

fn are_routable(one: IpAddr, other: IpAddr, networks: &Networks) -> bool {
    networks.routable.iter().any(|group| {
        let holds = |address| group.iter().any(|prefix| prefix.contains(&address));
        holds(one) && holds(other)
    })
}

/// Of a network that others have as well (RFC 1918, 6598, 3927, 4193, 4291): from elsewhere it reaches nobody, or somebody else.
pub(crate) fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private() || address.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}

/// Addresses of local networks (RFC 1918, 4193), which loop back to nobody.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// One observed address is a hint only: behind a carrier's NAT it may be a thousand homes, all 192.168.1.x. Both local
/// addresses must stand in Contact and description, differ, and lie in one /24 or /64.
fn share_a_lan(one: &Place, other: &Place, networks: &Networks) -> Option<[SocketAddr; 2]> {
    let is_carrier = networks.carrier_nat.iter().any(|prefix| prefix.contains(&one.observed.ip()));
    if !networks.lan_release || is_carrier {
        return None;
    }
    let (here, there) = (one.local()?, other.local()?);
    // What stands behind a NAT is private; any other address is a stranger's, or a trick.
    if ![here, there].iter().all(|local| is_private(local.ip())) {
        return None;
    }
    let is_one_subnet = match (here.ip(), there.ip()) {
        (IpAddr::V4(here), IpAddr::V4(there)) => here.octets()[..3] == there.octets()[..3],
        (IpAddr::V6(here), IpAddr::V6(there)) => here.octets()[..8] == there.octets()[..8],
        _ => false,
    };
    (is_one_subnet && here.ip() != there.ip()).then_some([here, there])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(observed: &str, signalled: &str, mapping: Mapping) -> Place {
        let signalled: SocketAddr = signalled.parse().unwrap();
        Place {
            observed: observed.parse().unwrap(),
            signalled: Some(signalled),
            contact: Some(signalled.ip()),
            mapping,
            realm: 0,
            is_unfit: false,
        }
    }

    fn lan() -> Networks {
        Networks { lan_release: true, ..Networks::default() }
    }

    const HOME: [(&str, &str); 2] =
        [("203.0.113.9:61000", "192.168.1.5:4000"), ("203.0.113.9:61002", "192.168.1.6:4000")];

    fn home() -> [Place; 2] {
        HOME.map(|(observed, signalled)| place(observed, signalled, Mapping::Unknown))
    }

    #[test]
    fn two_that_are_seen_as_they_say_are_pointed_at_each_other() {
        let places = ["198.51.100.7:4000", "203.0.113.8:5000"].map(|at| place(at, at, Mapping::Unknown));
        let addresses = places.each_ref().map(|place| place.observed);
        assert_eq!(choose(&places, &Networks::default()), Ok(Way::Observed(addresses)));
    }

    #[test]
    fn a_nat_is_learnt_before_it_is_trusted_and_a_dependent_one_keeps_the_call_on_the_relay() {
        let public = place("198.51.100.7:4000", "198.51.100.7:4000", Mapping::Unknown);
        let behind = |mapping| place("203.0.113.9:61000", "192.168.1.5:4000", mapping);
        let way = |mapping| choose(&[public.clone(), behind(mapping)], &Networks::default());
        assert_eq!(way(Mapping::Unknown), Ok(Way::Learn([false, true])));
        assert!(matches!(way(Mapping::EndpointIndependent), Ok(Way::Observed(_))));
        assert_eq!(way(Mapping::Dependent { step: 1 }), Err(Stay::DependentMapping));
    }

    #[test]
    fn a_shared_public_address_alone_is_no_evidence_of_one_lan() {
        assert_eq!(choose(&home(), &Networks::default()), Err(Stay::SharedAddress), "not allowed");
        let carrier = Networks { carrier_nat: vec!["203.0.113.0/24".parse().unwrap()], ..lan() };
        assert_eq!(choose(&home(), &carrier), Err(Stay::SharedAddress), "a carrier's NAT");
        let mut twins = home();
        twins[1].signalled = twins[0].signalled;
        twins[1].contact = twins[0].contact;
        assert_eq!(choose(&twins, &lan()), Err(Stay::SharedAddress), "the same local address twice");
        let mut elsewhere = home();
        elsewhere[1].signalled = Some("192.168.2.6:4000".parse().unwrap());
        elsewhere[1].contact = Some("192.168.2.6".parse().unwrap());
        assert_eq!(choose(&elsewhere, &lan()), Err(Stay::SharedAddress), "another subnet");
        let mut liar = home();
        liar[1].contact = Some("192.168.1.99".parse().unwrap());
        assert_eq!(choose(&liar, &lan()), Err(Stay::SharedAddress), "Contact says otherwise");
    }

    #[test]
    fn two_of_one_lan_get_each_others_local_address() {
        let expected = HOME.map(|(_, signalled)| signalled.parse().unwrap());
        assert_eq!(choose(&home(), &lan()), Ok(Way::Local(expected)));
    }

    #[test]
    fn configured_networks_need_no_more_evidence() {
        let networks = Networks {
            routable: vec![vec!["10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap()]],
            ..Networks::default()
        };
        let places = [
            place("203.0.113.9:61000", "10.1.0.5:4000", Mapping::Unknown),
            place("203.0.113.10:61000", "10.2.0.5:4000", Mapping::Dependent { step: 9 }),
        ];
        assert!(matches!(choose(&places, &networks), Ok(Way::Local(_))));
        let outside =
            [places[0].clone(), place("203.0.113.10:6", "10.3.0.5:4000", Mapping::Dependent { step: 9 })];
        assert_eq!(choose(&outside, &networks), Err(Stay::DependentMapping));
    }

    #[test]
    fn what_a_phone_behind_a_nat_claims_to_be_is_not_used_unless_it_is_private() {
        for claimed in [
            ["127.0.0.1:4000", "127.0.0.2:4000"],
            ["198.51.100.5:4000", "198.51.100.6:4000"],
            ["224.0.0.5:4000", "224.0.0.6:4000"],
        ] {
            let places = [0, 1].map(|index| {
                let observed = ["203.0.113.9:61000", "203.0.113.9:61002"][index];
                place(observed, claimed[index], Mapping::Unknown)
            });
            assert_eq!(choose(&places, &lan()), Err(Stay::SharedAddress), "{claimed:?}");
        }
    }

    #[test]
    fn two_families_stay_on_the_relay() {
        let places = ["198.51.100.7:4000", "[2001:db8::8]:5000"].map(|at| place(at, at, Mapping::None));
        assert_eq!(choose(&places, &Networks::default()), Err(Stay::Family));
    }

    /// Two that are seen as they say, in these realms.
    fn plain(at: [&str; 2], realms: [u16; 2]) -> [Place; 2] {
        [0, 1].map(|index| Place { realm: realms[index], ..place(at[index], at[index], Mapping::None) })
    }

    #[test]
    fn a_local_network_is_not_tried_from_elsewhere_unless_it_is_said_to_be_routed() {
        let routable = Networks {
            routable: vec![
                ["10.0.0.0/8", "198.51.100.0/24", "fd00::/8", "2001:db8::/32"]
                    .map(|prefix| prefix.parse().unwrap())
                    .to_vec(),
            ],
            ..Networks::default()
        };
        let certain = Networks { certain: true, ..Networks::default() };
        for at in [
            ["10.1.1.5:4000", "198.51.100.7:4000"],
            ["198.51.100.7:4000", "100.64.1.5:4000"],
            ["172.16.0.9:4000", "192.168.3.9:4000"],
            ["10.1.1.5:4000", "10.1.1.6:4000"],
            ["[fd00::5]:4000", "[2001:db8::7]:4000"],
            ["[::ffff:10.1.1.5]:4000", "[::ffff:198.51.100.7]:4000"],
        ] {
            let across = plain(at, [0, 1]);
            assert_eq!(choose(&across, &Networks::default()), Err(Stay::Unroutable), "{at:?}");
            assert!(matches!(choose(&across, &certain), Ok(Way::Observed(_))), "{at:?}");
        }
        for at in [["10.1.1.5:4000", "198.51.100.7:4000"], ["[fd00::5]:4000", "[2001:db8::7]:4000"]] {
            assert!(choose(&plain(at, [0, 1]), &routable).is_ok(), "{at:?}");
            assert_eq!(choose(&plain(at, [0, 0]), &Networks::default()), Err(Stay::Unroutable), "one realm");
        }
        let inside = plain(["10.1.1.5:4000", "10.2.1.5:4000"], [0, 0]);
        assert!(choose(&inside, &Networks::default()).is_ok(), "two subnets of one realm");
        let public = plain(["203.0.113.8:4000", "198.51.100.7:4000"], [0, 1]);
        assert!(choose(&public, &Networks::default()).is_ok(), "two realms of one world");
    }

    #[test]
    fn two_behind_one_nat_are_one_lan_whatever_realms_they_call_through() {
        let mut places = home();
        places[1].realm = 1;
        assert!(matches!(choose(&places, &lan()), Ok(Way::Local(_))));
        // The NAT's own address may be local: that of a network in a network.
        for place in &mut places {
            place.observed.set_ip("10.7.7.7".parse().unwrap());
        }
        assert!(matches!(choose(&places, &lan()), Ok(Way::Local(_))));
    }

    #[test]
    fn an_address_of_ours_is_never_tried() {
        for index in 0..2 {
            let mut places = plain(["203.0.113.8:4000", "198.51.100.7:4000"], [0, 1]);
            places[index].is_unfit = true;
            let networks = Networks { certain: true, ..lan() };
            assert_eq!(choose(&places, &networks), Err(Stay::Unfit));
        }
    }

    #[test]
    fn a_routable_group_of_two_families_leads_nobody_from_one_to_the_other() {
        let routable = vec![vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]];
        let networks = Networks { routable, ..Networks::default() };
        let places = [
            place("203.0.113.9:61000", "10.1.0.5:4000", Mapping::EndpointIndependent),
            place("203.0.113.10:61000", "[2001:db8::5]:4000", Mapping::EndpointIndependent),
        ];
        assert!(matches!(choose(&places, &networks), Ok(Way::Observed(_))));
    }
}
