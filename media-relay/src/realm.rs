//! The media side of a realm: where its ports are.

use std::net::IpAddr;
use std::ops::RangeInclusive;

/// A media address of a realm.
#[derive(Debug, Clone)]
pub struct Address {
    /// Where sockets are bound.
    pub bind: IpAddr,
    /// What descriptions say; differs from `bind` behind a one-to-one NAT.
    pub advertised: IpAddr,
}

/// The media side of a realm.
#[derive(Debug, Clone)]
pub struct RealmMedia {
    /// Its addresses; the first of a family is used first.
    pub addresses: Vec<Address>,
    /// Its ports.
    pub ports: RangeInclusive<u16>,
    /// How routers are to treat what is sent (DSCP, RFC 2474), 0 to 63.
    pub dscp: u8,
}
