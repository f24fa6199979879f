//! Trunks, and what tells that a request is of one: its address, or a certificate.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sip_engine::io::RealmId;
use sip_engine::question::TrunkTarget;

/// A trunk, where its requests come from, and the name in its certificate.
#[derive(Debug, Clone)]
pub struct Trunk {
    /// Where calls to it go.
    pub target: Arc<TrunkTarget>,
    /// Networks that its requests come from.
    pub networks: Vec<IpNet>,
    /// The name in its certificate, lower case.
    pub certificate: Option<Arc<str>>,
}

/// All of them. Made anew whenever one changes: there are thousands, not millions.
#[derive(Debug, Default)]
pub struct Trunks {
    targets: HashMap<Arc<str>, Arc<TrunkTarget>>,
    list: Arc<[Arc<TrunkTarget>]>,
    /// By realm and network; host bits are zero.
    sources: HashMap<(RealmId, IpNet), Arc<str>>,
    /// Which lengths of networks there are, by realm: an address is looked up once for each, the longest first.
    lengths: HashMap<(RealmId, bool), Vec<u8>>,
    certificates: HashMap<(RealmId, Arc<str>), Vec<Arc<str>>>,
    have_addresses: HashSet<Arc<str>>,
    have_certificates: HashSet<Arc<str>>,
}

impl Trunks {
    /// Of these. Where two claim one network the one whose name comes first has it.
    pub fn new(mut trunks: Vec<Trunk>) -> Self {
        trunks.sort_by(|one, other| one.target.name.cmp(&other.target.name));
        let mut made =
            Self { list: trunks.iter().map(|trunk| trunk.target.clone()).collect(), ..Self::default() };
        let mut lengths: BTreeSet<(RealmId, bool, u8)> = BTreeSet::new();
        for trunk in trunks {
            let (name, realm) = (trunk.target.name.clone(), trunk.target.realm);
            for network in &trunk.networks {
                lengths.insert((realm, network.addr().is_ipv4(), network.prefix_len()));
                made.sources.entry((realm, network.trunc())).or_insert_with(|| name.clone());
                made.have_addresses.insert(name.clone());
            }
            if let Some(certificate) = trunk.certificate {
                made.certificates.entry((realm, certificate)).or_default().push(name.clone());
                made.have_certificates.insert(name.clone());
            }
            made.targets.insert(name, trunk.target);
        }
        for (realm, is_v4, length) in lengths.into_iter().rev() {
            made.lengths.entry((realm, is_v4)).or_default().push(length);
        }
        made
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Arc<TrunkTarget>> {
        self.targets.get(name)
    }

    /// All.
    pub fn list(&self) -> &Arc<[Arc<TrunkTarget>]> {
        &self.list
    }

    /// The trunk whose network an address is in, the smallest one.
    pub fn source(&self, realm: RealmId, address: IpAddr) -> Option<&Arc<str>> {
        let lengths = self.lengths.get(&(realm, address.is_ipv4()))?;
        lengths.iter().find_map(|length| {
            let network = IpNet::new(address, *length).ok()?.trunc();
            self.sources.get(&(realm, network))
        })
    }

    /// A trunk with a certificate's name needs that certificate wherever it calls from; if it has addresses too, both.
    pub fn peer(&self, realm: RealmId, address: IpAddr, names: &[Arc<str>]) -> Option<&Arc<str>> {
        let by_address = self.source(realm, address);
        let certified = names
            .iter()
            .filter_map(|name| self.certificates.get(&(realm, name.clone())))
            .flatten()
            .find(|trunk| by_address == Some(*trunk) || !self.have_addresses.contains(*trunk));
        certified.or_else(|| by_address.filter(|trunk| !self.have_certificates.contains(*trunk)))
    }
}
