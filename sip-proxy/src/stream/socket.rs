//! A TCP socket that can move from one thread's reactor to another's, below whatever speaks over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The socket below a TLS session.
#[derive(Debug)]
pub(crate) struct Socket(Place);

#[derive(Debug)]
enum Place {
    /// Known to this thread's reactor.
    Here(TcpStream),
    /// Known to none.
    Away(std::net::TcpStream),
    /// It could not be moved.
    Lost,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Place::Here(stream))
    }

    /// The thread that it was used on lets go of it.
    pub(crate) fn depart(&mut self) -> io::Result<()> {
        if let Place::Here(stream) = std::mem::replace(&mut self.0, Place::Lost) {
            self.0 = Place::Away(stream.into_std()?);
        }
        Ok(())
    }

    /// This thread takes it.
    pub(crate) fn arrive(&mut self) -> io::Result<()> {
        if let Place::Away(stream) = std::mem::replace(&mut self.0, Place::Lost) {
            self.0 = Place::Here(TcpStream::from_std(stream)?);
        }
        Ok(())
    }

    fn here(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.get_mut().0 {
            Place::Here(stream) => Ok(Pin::new(stream)),
            Place::Away(_) | Place::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.here()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(context)
    }
}
