//! The other ends: sockets, and just enough SIP to speak with the plane.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

/// Longer than any answer takes that comes at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The first value of a header, as written out in full.
pub(crate) fn header<'a>(message: &'a str, name: &str) -> &'a str {
    message
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {name} in:\n{message}"))
        .trim()
}

pub(crate) fn status(message: &str) -> u16 {
    message.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// A request that begins a dialog or stands alone.
pub(crate) fn request(method: &str, uri: &str, transport: &str, local: SocketAddr, body: &str) -> String {
    let id = unique();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{method} {uri} SIP/2.0\r\n\
         Via: SIP/2.0/{transport} {local};branch=z9hG4bK{id};rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:alice@example.net>;tag={id}\r\n\
         To: <{uri}>\r\n\
         Call-ID: {id}@{}\r\n\
         CSeq: 1 {method}\r\n\
         Contact: <sip:alice@{local}>\r\n\
         {kind}Content-Length: {}\r\n\r\n{body}",
        local.ip(),
        body.len()
    )
}

/// A response as a user agent makes it: Via, From, Call-ID and CSeq copied, a tag of its own.
pub(crate) fn response(request: &str, code: u16, contact: SocketAddr, body: &str) -> String {
    let vias: String =
        request.lines().filter(|line| line.starts_with("Via:")).map(|line| format!("{line}\r\n")).collect();
    let to = header(request, "To");
    let tag = if to.contains(";tag=") || code == 100 { "" } else { ";tag=callee" };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "SIP/2.0 {code} Any\r\n{vias}From: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
         Contact: <sip:bob@{contact}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        header(request, "From"),
        header(request, "Call-ID"),
        header(request, "CSeq"),
        body.len()
    )
}

/// A request inside the dialog that `invite` began and `answer` confirmed, from the caller's side.
pub(crate) fn in_dialog(method: &str, invite: &str, answer: &str) -> String {
    let contact = header(answer, "Contact");
    let uri = contact.trim_start_matches('<').split('>').next().unwrap();
    let branch = unique();
    let via = header(invite, "Via");
    let via = format!("{};branch=z9hG4bK{branch};rport", via.split(';').next().unwrap());
    let number = if method == "ACK" { 1 } else { 2 };
    format!(
        "{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\n\
         CSeq: {number} {method}\r\nContent-Length: 0\r\n\r\n",
        header(invite, "From"),
        header(answer, "To"),
        header(invite, "Call-ID"),
    )
}

/// A phone or trunk on UDP.
pub(crate) struct Udp {
    pub(crate) socket: UdpSocket,
    pub(crate) local: SocketAddr,
    pub(crate) sbc: SocketAddr,
}

impl Udp {
    pub(crate) fn new(ip: IpAddr, sbc: SocketAddr) -> Self {
        Self::at(SocketAddr::new(ip, 0), sbc)
    }

    pub(crate) fn at(address: SocketAddr, sbc: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let local = socket.local_addr().unwrap();
        Self { socket, local, sbc }
    }

    pub(crate) fn send(&self, message: &str) {
        self.socket.send_to(message.as_bytes(), self.sbc).unwrap();
    }

    pub(crate) fn within(&self, time: Duration) -> &Self {
        self.socket.set_read_timeout(Some(time)).unwrap();
        self
    }

    /// The next message; `None` if none comes.
    pub(crate) fn receive(&self) -> Option<String> {
        let mut buffer = [0; 65_535];
        let (length, source) = self.socket.recv_from(&mut buffer).ok()?;
        assert_eq!(source, self.sbc, "an answer comes from where the request went");
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// The next message that is not 100.
    pub(crate) fn expect(&self) -> String {
        loop {
            let message = self.receive().expect("a message");
            if status(&message) != 100 {
                return message;
            }
        }
    }

    pub(crate) fn request(&self, method: &str, uri: &str, body: &str) -> String {
        request(method, uri, "UDP", self.local, body)
    }

    /// OPTIONS for the SBC itself: the status of the answer, 0 if none comes.
    pub(crate) fn ping(&self) -> u16 {
        self.send(&self.request("OPTIONS", &format!("sip:{}", self.sbc), ""));
        self.receive().map_or(0, |answer| status(&answer))
    }
}

/// A stream peer, with what was read and not yet taken.
pub(crate) struct Stream<S> {
    pub(crate) stream: S,
    pub(crate) local: SocketAddr,
    pub(crate) transport: &'static str,
    buffer: Vec<u8>,
}

impl Stream<TcpStream> {
    pub(crate) fn connect(from: IpAddr, sbc: SocketAddr) -> Self {
        Self::accepted(tcp(from, sbc))
    }

    pub(crate) fn accepted(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let local = stream.local_addr().unwrap();
        Self::over(stream, local, "TCP")
    }
}

impl Stream<TcpStream> {
    /// Whether something has come, within a moment.
    pub(crate) fn has_message(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        self.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let has = self.stream.peek(&mut [0]).is_ok_and(|length| length > 0);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        has
    }
}

/// A connection from a certain address.
pub(crate) fn tcp(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl<S: Read + Write> Stream<S> {
    pub(crate) fn over(stream: S, local: SocketAddr, transport: &'static str) -> Self {
        Self { stream, local, transport, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    pub(crate) fn request(&self, method: &str, uri: &str, body: &str) -> String {
        request(method, uri, self.transport, self.local, body)
    }

    /// Raw bytes; an empty answer is the end of the stream.
    pub(crate) fn read(&mut self) -> io::Result<Vec<u8>> {
        if !self.buffer.is_empty() {
            return Ok(std::mem::take(&mut self.buffer));
        }
        let mut part = vec![0; 65_536];
        let length = self.stream.read(&mut part)?;
        part.truncate(length);
        Ok(part)
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) fn receive(&mut self) -> Option<String> {
        loop {
            let text = String::from_utf8_lossy(&self.buffer).into_owned();
            if let Some(end) = text.find("\r\n\r\n") {
                let length: usize = header(&text[..end + 2], "Content-Length").parse().unwrap();
                if self.buffer.len() >= end + 4 + length {
                    let message = self.buffer.drain(..end + 4 + length).collect();
                    return Some(String::from_utf8(message).unwrap());
                }
            }
            let mut part = [0; 65_536];
            match self.stream.read(&mut part) {
                Ok(0) => return None,
                Ok(length) => self.buffer.extend_from_slice(&part[..length]),
                Err(error) => panic!("no whole message in time ({error}): {text:?}"),
            }
        }
    }

    pub(crate) fn expect(&mut self) -> String {
        loop {
            let message = self.receive().expect("a message before the stream ends");
            if status(&message) != 100 {
                return message;
            }
        }
    }
}
