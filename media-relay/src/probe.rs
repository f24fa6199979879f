//! What this machine allows, tried and undone.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::realm::RealmMedia;
use crate::reserve::Reservation;
use crate::shared::Shared;
use crate::steering::{Steering, Unavailable};

/// Whether ports can be steered here: it is tried, and undone.
///
/// # Errors
/// Says what is missing.
pub fn steering_works(realms: &[RealmMedia]) -> Result<(), Unavailable> {
    let ranges: Vec<_> = realms.iter().map(|realm| realm.ports.clone()).collect();
    let _reservation = Reservation::make(&ranges).map_err(Unavailable::Reserve)?;
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Shared::open(local, 0, Arc::new(Steering::attach(1, 2, None)?)).map(drop)
}
