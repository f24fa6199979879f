//! What a service manager is told (sd_notify(3)): that the program has begun, that it lives, that it stops.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The service manager that started this process, if it wants to know.
#[derive(Debug)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Twice in the time after which it would lose patience.
    every: Option<Duration>,
    told: Option<Instant>,
}

impl Manager {
    /// As the environment says.
    pub fn from_environment() -> Self {
        let path = std::env::var_os("NOTIFY_SOCKET");
        let microseconds = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        Self::new(path.as_deref(), microseconds.map(Duration::from_micros))
    }

    fn new(path: Option<&std::ffi::OsStr>, patience: Option<Duration>) -> Self {
        let socket = path.and_then(|path| {
            let bytes = path.as_encoded_bytes();
            let address = match bytes.strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(path),
            };
            let opened = UnixDatagram::unbound().and_then(|socket| {
                socket.set_nonblocking(true)?;
                Ok((socket, address?))
            });
            opened.map_err(|error| tracing::warn!(%error, "the service manager can't be told anything")).ok()
        });
        Self { socket, every: patience.and_then(|patience| patience.checked_div(2)), told: None }
    }

    /// Listeners are open.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// It stops: no new calls.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Every part lives. May be called often.
    pub fn alive(&mut self) {
        if let Some(every) = self.every
            && self.told.is_none_or(|told| told.elapsed() >= every)
        {
            self.told = Some(Instant::now());
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, what: &str) {
        if let Some((socket, address)) = &self.socket {
            // One that does not listen is told again, or not at all: nothing here waits for it.
            let _ = socket.send_to_addr(what.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_hears_that_it_began_that_it_lives_and_that_it_stops() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        let mut manager = Manager::new(Some(path.as_os_str()), Some(Duration::from_secs(60)));
        manager.ready();
        manager.alive();
        manager.alive();
        manager.stopping();
        let next = || {
            let mut buffer = [0; 32];
            let length = heard.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert_eq!([next(), next(), next()], ["READY=1", "WATCHDOG=1", "STOPPING=1"]);
        Manager::new(None, None).ready();
    }
}
