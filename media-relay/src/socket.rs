//! The socket of one media port.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// The kernel doubles it, for its own needs: about 170 packets of speech or 50 of video. More would only make an overload last longer.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// A media port's own socket.
pub(crate) fn bind(address: SocketAddr, traffic_class: u8) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_tclass_v6(traffic_class.into())?;
    } else {
        socket.set_tos_v4(traffic_class.into())?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
