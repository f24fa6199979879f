//! UDP sockets in a laboratory's hosts, held by the test itself.

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::{Failure, Lab, Result};

/// A socket in a host, bound to `address`; it stays in that network namespace.
pub fn udp(lab: &Lab, host: &str, address: &str) -> Result<UdpSocket> {
    let namespace = File::open(format!("/run/netns/{}", lab.namespace(host)))?;
    let address: SocketAddr =
        address.parse().map_err(|_| Failure(format!("{address} is no address with port")))?;
    // A thread of its own, since its namespace is the thread's.
    let bound = std::thread::spawn(move || {
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), network)?;
        UdpSocket::bind(address)
    });
    let socket = bound.join().map_err(|_| Failure("the thread that binds has panicked".into()))??;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}

/// Sends from one socket to an address and returns who the other sees as its sender, if it arrives.
pub fn seen(from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> Result<Option<SocketAddr>> {
    let mut buffer = [0; 64];
    let text = format!("{to}");
    from.send_to(text.as_bytes(), to)?;
    // Strays of an earlier step are passed over.
    while let Ok((length, source)) = at.recv_from(&mut buffer) {
        if buffer.get(..length) == Some(text.as_bytes()) {
            return Ok(Some(source));
        }
    }
    Ok(None)
}
