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
use sip_engine::io::Flow;
use sip_wire::{Framed, StreamFramer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout, timeout_at};

use super::standing::{Entered, Origin, Standing};
use super::{HANDSHAKE, after};
use crate::settings::PlaneSettings;
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

/// Reads and writes until either side ends it.
pub(super) async fn converse<S>(
    stream: S,
    mut entered: Entered,
    origin: Origin,
    since: Instant,
    shard: &Rc<RefCell<Shard>>,
) where
    S: AsyncRead + AsyncWrite,
{
    let (reader, writer) = tokio::io::split(stream);
    let connection = entered.connection;
    {
        let patience = Patience {
            since,
            has_spoken: origin == Origin::Dialled,
            is_proven: entered.standing.clone(),
            heard: Instant::now(),
            begun: None,
        };
        let mut reading = pin!(read(reader, entered.flow, patience, shard));
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
    let Entered { waiting, writing: batch, standing, .. } = entered;
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
            Err(_) => return shard.borrow().counters.streams.stalled.up(),
        }
        standing.remove(length);
    }
    let _ = timeout(WRITE, writer.shutdown()).await;
}

/// How long a connection's peer may go on without what is expected of it.
struct Patience {
    /// When the connection was opened.
    since: Instant,
    /// Strangers must say something soon; keepalives alone are not it.
    has_spoken: bool,
    /// Whether the peer has shown who it is.
    is_proven: Rc<Standing>,
    /// When anything came last.
    heard: Instant,
    /// Since when the message lasts that has begun and not ended.
    begun: Option<Instant>,
}

impl Patience {
    /// When it ends.
    fn end(&self, settings: &PlaneSettings) -> Instant {
        let Self { since, heard, .. } = *self;
        let silence = if self.has_spoken { after(heard, settings.idle) } else { after(since, HANDSHAKE) };
        // What a stranger says, however often, keeps no connection open.
        let stranger = (!self.is_proven.is_proven()).then(|| after(since, settings.unproven));
        let message = self.begun.map(|begun| after(begun, MESSAGE));
        [stranger, message].into_iter().flatten().fold(silence, Instant::min)
    }
}

/// Reads messages until the peer ends the stream, breaks it, is silent for too long, or has not said who it is in time.
async fn read<R: AsyncRead>(
    mut reader: ReadHalf<R>,
    flow: Flow,
    mut patience: Patience,
    shard: &Rc<RefCell<Shard>>,
) {
    let mut framer = StreamFramer::default();
    loop {
        let end = patience.end(&shard.borrow().settings);
        match timeout_at(end, fill(&mut reader, &mut framer)).await {
            Ok(Ok(length)) if length > 0 => {}
            Ok(_) => return,
            // It may have been proven by a shard that is its message's home, or by a registrar's answer.
            Err(_) if patience.end(&shard.borrow().settings) > end => continue,
            Err(_) => return shard.borrow().counters.streams.idle.up(),
        }
        patience.heard = Instant::now();
        let mut shard = shard.borrow_mut();
        shard.tick();
        loop {
            // What a panic leaves of the framer is not used again: the connection closes.
            let Ok(framed) = vitals::contained(AssertUnwindSafe(|| framer.next())) else {
                return shard.unreadable(flow.remote, &[]);
            };
            match framed {
                Ok(Some(Framed::Message(message))) => {
                    patience.has_spoken = true;
                    patience.begun = None;
                    if shard.admits(flow.listener, flow.remote) {
                        shard.message(flow, message);
                    }
                }
                Ok(Some(Framed::Ping)) => {
                    shard.counters.keepalives.up();
                    if let Some(connection) = flow.connection {
                        shard.connections.pong(connection);
                    }
                }
                Ok(Some(Framed::Pong)) => shard.counters.keepalives.up(),
                Ok(None) => break,
                Err(refused) => {
                    // Answered if it can be. Where its end is in doubt nothing behind it can be read, so the connection
                    // closes (RFC 3261 §18.3); other mistakes cost one request, not a trunk's connection.
                    let is_lost = refused.cause.breaks_framing();
                    patience.begun = None;
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
        patience.begun = if framer.is_empty() { None } else { patience.begun.or(Some(patience.heard)) };
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
