//! What a row calls the realm and the listener of a binding. The engine counts them in the order of the configuration, and the
//! next process may have another configuration: **what outlives the process names, and is resolved when it is read**.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use sip_engine::config::Config;
use sip_engine::io::{ListenerId, RealmId, Transport};
use sip_engine::registrar::BindingRecord;

/// The realms and listeners of a configuration, by number and by name.
#[derive(Debug, Clone)]
pub struct Names {
    realms: Vec<Arc<str>>,
    listeners: Vec<Listener>,
}

#[derive(Debug, Clone)]
struct Listener {
    name: String,
    realm: RealmId,
    transport: Transport,
}

/// Why a row's binding can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The configuration has no such realm.
    #[error("realm {0} is not configured")]
    Realm(String),
    /// It has no such listener.
    #[error("no realm listens on {0}")]
    Listener(String),
    /// The listener is another realm's now.
    #[error("{listener} is no longer a listener of realm {realm}")]
    Moved {
        /// The row's listener.
        listener: String,
        /// The row's realm.
        realm: String,
    },
    /// Not what this program writes.
    #[error("it can't be read: {0}")]
    Damaged(String),
}

impl Names {
    /// Those of a configuration.
    pub fn new(config: &Config) -> Self {
        let listener = |listener: &sip_engine::config::Listener| Listener {
            name: name_of(listener.transport, listener.address),
            realm: listener.realm,
            transport: listener.transport,
        };
        Self {
            realms: config.realms.iter().map(|realm| realm.name.clone()).collect(),
            listeners: config.listeners.iter().map(listener).collect(),
        }
    }

    /// The name of a record's realm.
    pub fn realm(&self, record: &BindingRecord) -> &str {
        self.realms.get(usize::from(record.realm.0)).map_or("", |name| name)
    }

    /// The name of a record's listener.
    pub fn listener(&self, record: &BindingRecord) -> &str {
        self.listeners.get(usize::from(record.flow.listener.0)).map_or("", |listener| &listener.name)
    }

    /// A record as it is kept: with names for numbers.
    pub fn to_kept(&self, record: &BindingRecord) -> Result<Value, serde_json::Error> {
        let mut kept = serde_json::to_value(record)?;
        if let Some(realm) = kept.get_mut("realm") {
            *realm = json!(self.realm(record));
        }
        if let Some(listener) = kept.pointer_mut("/flow/listener") {
            *listener = json!(self.listener(record));
        }
        Ok(kept)
    }

    /// The record that was kept, in the numbers of this configuration.
    pub fn resolve(&self, mut kept: Value) -> Result<BindingRecord, Unresolved> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let realm_name = text(kept.get("realm"));
        let listener_name = text(kept.pointer("/flow/listener"));
        let realm = self.realms.iter().position(|name| **name == *realm_name).and_then(number);
        let Some(realm) = realm.map(RealmId) else { return Err(Unresolved::Realm(realm_name)) };
        let place = self.listeners.iter().position(|listener| listener.name == listener_name);
        let found = place.and_then(|place| Some((number(place)?, self.listeners.get(place)?)));
        let Some((place, listener)) = found else { return Err(Unresolved::Listener(listener_name)) };
        if listener.realm != realm {
            return Err(Unresolved::Moved { listener: listener_name, realm: realm_name });
        }
        if let Some(field) = kept.get_mut("realm") {
            *field = json!(realm);
        }
        if let Some(field) = kept.pointer_mut("/flow/listener") {
            *field = json!(ListenerId(place));
        }
        let record: BindingRecord =
            serde_json::from_value(kept).map_err(|error| Unresolved::Damaged(error.to_string()))?;
        if record.flow.transport != listener.transport {
            return Err(Unresolved::Damaged("its transport is not its listener's".to_owned()));
        }
        Ok(record)
    }
}

fn number(place: usize) -> Option<u16> {
    u16::try_from(place).ok()
}

/// As `listen` writes it.
fn name_of(transport: Transport, address: SocketAddr) -> String {
    format!("{}:{address}", transport.via_token().to_ascii_lowercase())
}
