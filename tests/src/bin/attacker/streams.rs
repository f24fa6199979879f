//! Connections: TLS handshakes by the hundred, and connections held open that say little.

use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use crate::{Pace, Plan};

/// What a held connection says, once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Talk {
    /// Every second one an OPTIONS, the others nothing.
    Sip,
    /// The beginning of a request.
    HalfHttp,
}

/// Threads that shake hands.
const HANDS: u64 = 16;

/// Whole handshakes, each from another address; the connection is closed at once.
pub(crate) fn shake_hands(plan: &Plan) -> Result<u64> {
    let done = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..HANDS)
        .map(|thread| {
            let (plan, done) = (Plan { rate: plan.rate / HANDS as f64, ..*plan }, done.clone());
            std::thread::spawn(move || {
                let mut pace = Pace::new(&plan);
                let mut number = thread;
                while let Some(due) = pace.due() {
                    for _ in 0..due {
                        number += HANDS;
                        let session = crush_tests::agent::connect(plan.source(number), plan.target)
                            .and_then(crush_tests::agent::shake_hands);
                        done.fetch_add(u64::from(session.is_ok()), Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| Error::other("a thread has panicked"))?;
    }
    Ok(done.load(Ordering::Relaxed))
}

/// So many connections, opened again whenever they are closed: how many were opened.
pub(crate) fn hold(plan: &Plan, talk: Talk) -> Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (plan, opened) = (*plan, Arc::new(AtomicU64::new(0)));
    runtime.block_on(async {
        for number in 0..plan.rate as u64 {
            let opened = opened.clone();
            tokio::spawn(async move {
                let end = Instant::now() + plan.time;
                while Instant::now() < end {
                    let held = held(&plan, number, talk, &opened).await;
                    if held.is_err() {
                        sleep(Duration::from_millis(100)).await;
                    }
                }
            });
            // A thousand in a tenth of a second is a storm already.
            if number % 100 == 99 {
                sleep(Duration::from_millis(10)).await;
            }
        }
        sleep(plan.time).await;
    });
    Ok(opened.load(Ordering::Relaxed))
}

/// One connection, until the other side ends it.
async fn held(plan: &Plan, number: u64, talk: Talk, opened: &AtomicU64) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(plan.source(number), 0))?;
    let mut stream = timeout(Duration::from_secs(5), socket.connect(plan.target)).await??;
    opened.fetch_add(1, Ordering::Relaxed);
    let (local, target) = (stream.local_addr()?, plan.target);
    match talk {
        Talk::Sip if number.is_multiple_of(2) => {
            let options = format!(
                "OPTIONS sip:{target} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bK{number}\r\n\
                 From: <sip:x@{local}>;tag=1\r\nTo: <sip:{target}>\r\nCall-ID: {local}\r\nCSeq: 1 OPTIONS\r\n\
                 Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(options.as_bytes()).await?;
        }
        Talk::Sip => {}
        Talk::HalfHttp => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: sbc\r\nX-Slow: ").await?,
    }
    let mut part = [0; 2048];
    while stream.read(&mut part).await? > 0 {}
    Ok(())
}
