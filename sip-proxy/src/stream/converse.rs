//! One connection, from its first byte to its end.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use sip_engine::io::{ConnectionId, Flow};
use sip_wire::{Framed, StreamFramer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout, timeout_at};

use super::HANDSHAKE;
use super::connections::Entered;
use crate::shard::Shard;

/// A peer that takes nothing for so long is dead.
const WRITE: Duration = Duration::from_secs(10);

/// A message that was begun ends within this time: who sends a byte now and then (slow loris) is cut off.
const MESSAGE: Duration = Duration::from_secs(10);

/// Messages written by one system call.
const BATCH: usize = 32;

/// Bytes read at once.
const READ: usize = 16 * 1024;

thread_local! {
    /// One for all connections of a thread: nothing is read into it across an await.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The peer.
    Accepted,
    /// We.
    Dialled,
}

/// Reads and writes until either side ends it.
pub(super) async fn converse<S>(stream: S, mut entered: Entered, origin: Origin, shard: &Rc<RefCell<Shard>>)
where
    S: AsyncRead + AsyncWrite,
{
    let (reader, writer) = tokio::io::split(stream);
    let connection = entered.connection;
    {
        let mut reading = pin!(read(reader, entered.flow, connection, origin, shard));
        let mut writing = pin!(write(writer, &mut entered, shard));
        tokio::select! {
            biased;
            () = &mut reading => {
                // What was queued until now, an answer to what ended the reading among it, is still written.
                shard.borrow_mut().connections.close(connection);
                let _ = timeout(WRITE, writing).await;
            }
            () = &mut writing => {}
        }
    }
    entered.leave(shard);
}

/// Writes what is queued until the connection is off the table, or its peer takes no more.
async fn write<W: AsyncWrite>(mut writer: WriteHalf<W>, entered: &mut Entered, shard: &Rc<RefCell<Shard>>) {
    let Entered { waiting, writing: batch, queued, .. } = entered;
    while waiting.recv_many(batch, BATCH).await > 0 {
        let length = batch.iter().map(|outgoing| outgoing.message.len()).sum::<usize>();
        let written = timeout(WRITE, async {
            match &**batch {
                [one] => writer.write_all(&one.message).await?,
                many => {
                    let mut joined = BytesMut::with_capacity(length);
                    many.iter().for_each(|outgoing| joined.extend_from_slice(&outgoing.message));
                    writer.write_all(&joined).await?;
                }
            }
            writer.flush().await
        });
        match written.await {
            Ok(Ok(())) => batch.clear(),
            Ok(Err(_)) => return,
            Err(_) => return shard.borrow().counters.connections_stalled.up(),
        }
        queued.remove(length);
    }
    let _ = timeout(WRITE, writer.shutdown()).await;
}

/// Reads messages until the peer ends the stream, breaks it, or is silent for too long.
async fn read<R: AsyncRead>(
    mut reader: ReadHalf<R>,
    flow: Flow,
    connection: ConnectionId,
    origin: Origin,
    shard: &Rc<RefCell<Shard>>,
) {
    let mut framer = StreamFramer::default();
    let idle = shard.borrow().settings.idle;
    // Strangers must say something soon; keepalives alone are not it.
    let mut has_spoken = origin == Origin::Dialled;
    let opened = Instant::now();
    let mut begun = None;
    loop {
        let deadline = match begun {
            _ if !has_spoken => opened + HANDSHAKE,
            Some(begun) => begun + MESSAGE,
            None => Instant::now() + idle,
        };
        match timeout_at(deadline, fill(&mut reader, &mut framer)).await {
            Ok(Ok(length)) if length > 0 => {}
            Ok(_) => return,
            Err(_) => return shard.borrow().counters.connections_idle.up(),
        }
        let mut shard = shard.borrow_mut();
        shard.tick();
        loop {
            // What a panic leaves of the framer is not used again: the connection closes.
            let Ok(framed) = vitals::contained(AssertUnwindSafe(|| framer.next())) else {
                return shard.unreadable(flow.remote, &[]);
            };
            match framed {
                Ok(Some(Framed::Message(message))) => {
                    has_spoken = true;
                    begun = None;
                    if shard.admits(flow.listener, flow.remote) {
                        shard.message(flow, message);
                    }
                }
                Ok(Some(Framed::Ping)) => {
                    shard.counters.keepalives.up();
                    shard.connections.pong(connection);
                }
                Ok(Some(Framed::Pong)) => shard.counters.keepalives.up(),
                Ok(None) => break,
                Err(refused) => {
                    // Answered if it can be. Where its end is in doubt nothing behind it can be read, so the connection
                    // closes (RFC 3261 §18.3); other mistakes cost one request, not a trunk's connection.
                    let is_lost = refused.cause.breaks_framing();
                    begun = None;
                    if shard.admits(flow.listener, flow.remote) {
                        shard.refused(flow, refused);
                    }
                    if is_lost {
                        return shard.settle();
                    }
                }
            }
        }
        shard.settle();
        begun = if framer.is_empty() { None } else { begun.or_else(|| Some(Instant::now())) };
    }
}

/// Reads what is there into the framer: how much.
async fn fill<R: AsyncRead>(reader: &mut ReadHalf<R>, framer: &mut StreamFramer) -> io::Result<usize> {
    poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut *reader).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) => {
                    framer.push(buffer.filled());
                    Poll::Ready(Ok(buffer.filled().len()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
    })
    .await
}
