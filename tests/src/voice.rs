//! One end of a call's media: G.711 in packets of 20 ms, and how many came of the other end's.

use std::io::Result;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;

const PACKET: Duration = Duration::from_millis(20);
/// Samples in a packet.
const STEP: u32 = 160;

/// See the module.
pub struct Voice {
    socket: UdpSocket,
    ssrc: u32,
    target: Option<SocketAddr>,
    due: Option<Instant>,
    until: Option<Instant>,
    /// Packets sent.
    pub sent: u32,
    /// Packets that came, each once.
    pub received: u32,
    highest: Option<u16>,
}

impl Voice {
    /// Opens a port at an address.
    pub fn new(address: IpAddr, ssrc: u32) -> Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, ssrc, target: None, due: None, until: None, sent: 0, received: 0, highest: None })
    }

    /// Its description, with so many m-lines.
    pub fn describe(&self, streams: usize) -> Bytes {
        let Ok(local) = self.socket.local_addr() else { return Bytes::new() };
        let (ip, port, ssrc) = (local.ip(), local.port(), self.ssrc);
        let stream = format!("m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n");
        format!(
            "v=0\r\no=- {ssrc} 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n{}",
            stream.repeat(streams)
        )
        .into()
    }

    /// Sends to where the other side's description says.
    pub fn aim(&mut self, sdp: &[u8]) {
        self.target = target(sdp);
    }

    /// Where it sends.
    pub fn target(&self) -> Option<SocketAddr> {
        self.target
    }

    /// Speaks from now on, for so long.
    pub fn speak(&mut self, time: Duration) {
        let now = Instant::now();
        self.due = Some(now);
        self.until = Some(now + time);
    }

    /// Whether it has said all.
    pub fn is_done(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Hears what has come and sends what is due.
    pub fn poll(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok((length, _)) = self.socket.recv_from(&mut buffer) {
            let Some([0x80, 0, high, low, ..]) = buffer.get(..length) else { continue };
            let number = u16::from_be_bytes([*high, *low]);
            // Nothing on the way doubles or reorders.
            if self.highest.is_none_or(|highest| number.wrapping_sub(highest) < 0x8000 && number != highest) {
                self.highest = Some(number);
                self.received += 1;
            }
        }
        let (Some(target), Some(until)) = (self.target, self.until) else { return };
        let now = Instant::now();
        while let Some(due) = self.due.filter(|due| *due <= now && *due < until) {
            let mut packet = [0xff; 172];
            let head = [
                &[0x80, 0][..],
                &(self.sent as u16).to_be_bytes(),
                &(self.sent * STEP).to_be_bytes(),
                &self.ssrc.to_be_bytes(),
            ];
            packet.iter_mut().zip(head.concat()).for_each(|(byte, head)| *byte = head);
            let _ = self.socket.send_to(&packet, target);
            self.sent += 1;
            self.due = Some(due + PACKET);
        }
    }
}

/// Where the first m-line of a description wants media.
fn target(sdp: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(sdp).ok()?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let address: IpAddr = value("c=IN IP4 ")?.trim().parse().ok()?;
    let port = value("m=audio ")?.split(' ').next()?.parse().ok()?;
    Some(SocketAddr::new(address, port))
}
