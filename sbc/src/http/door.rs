//! The connections of the pages: so few, and each for so short a time, that nobody can take them from who looks after the node.
//!
//! One request a connection. When all places are taken a newcomer gets the place of the oldest connection of whoever has most, those
//! whose request is not whole before others: two thousand half requests of one host cost another nothing, and those of many hosts, or of
//! this one, are gone before a whole request needs a millisecond.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tower_service::Service;

/// At the same time.
const PLACES: usize = 64;
/// For a request's lines and headers.
const HEAD: Duration = Duration::from_secs(5);
/// For all of it, with an answer that is read slowly.
const WHOLE: Duration = Duration::from_secs(15);
/// Of a request.
const LARGEST: usize = 16 * 1024;
/// After the system gave no connection, as for lack of files.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection, in the order in which they came.
#[derive(Debug)]
struct Place {
    source: IpAddr,
    is_asking: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// Serves the pages to whoever connects; never ends.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let mut places: Vec<Place> = Vec::with_capacity(PLACES);
    loop {
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        vitals::round();
        places.retain(|place| !place.task.is_finished());
        if places.len() >= PLACES
            && let Some(yields) = who_yields(&places)
        {
            places.remove(yields).task.abort();
        }
        places.push(admit(stream, source, router.clone()));
    }
}

/// The place that a newcomer gets.
fn who_yields(places: &[Place]) -> Option<usize> {
    let mut held: HashMap<IpAddr, usize> = HashMap::new();
    for place in places {
        let held = held.entry(place.source).or_default();
        *held = held.saturating_add(1);
    }
    let rank = |place: &Place| {
        let held = held.get(&place.source).copied().unwrap_or_default();
        (held, !place.source.is_loopback(), place.is_asking.load(Ordering::Relaxed))
    };
    // Of equals the last maximum would be taken, so it is looked for from the youngest on.
    places.iter().enumerate().rev().max_by_key(|(_, place)| rank(place)).map(|(index, _)| index)
}

fn admit(stream: TcpStream, source: SocketAddr, router: Router) -> Place {
    let is_asking = Arc::new(AtomicBool::new(true));
    let asks = is_asking.clone();
    let answer = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        asks.store(false, Ordering::Relaxed);
        let mut router = router.clone();
        async move {
            // A router is always ready.
            let answer = router.call(request.map(Body::new)).await;
            answer as Result<_, Infallible>
        }
    });
    let task = tokio::spawn(async move {
        let connection = http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(LARGEST)
            .serve_connection(TokioIo::new(stream), answer);
        // How a stranger's connection ends is nobody's news.
        let _ = tokio::time::timeout(WHOLE, connection).await;
    });
    Place { source: source.ip(), is_asking, task }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn door() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Router::new().route("/readyz", get(|| async { "ready\n" }))));
        address
    }

    async fn ask(door: SocketAddr, from: &str) -> String {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(door).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: node\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    async fn half_request(door: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(b"GET /metrics HT").await.unwrap();
        stream
    }

    #[tokio::test]
    async fn two_thousand_half_requests_delay_no_page() {
        let door = door().await;
        let mut held = Vec::new();
        for number in 0..2000 {
            held.push(half_request(door).await);
            if number % 100 == 0 {
                // From the same host as they, and from another.
                for from in ["127.0.0.1", "127.0.0.9"] {
                    let answer = tokio::time::timeout(Duration::from_secs(1), ask(door, from)).await;
                    assert!(answer.is_ok_and(|answer| answer.ends_with("ready\n")), "after {number}");
                }
            }
        }
        // The places of the first went to others.
        let gone = held[0].read(&mut [0; 1]).await;
        assert!(!matches!(gone, Ok(1..)));
    }

    #[tokio::test]
    async fn a_connection_serves_one_request_and_a_request_that_does_not_come_is_not_waited_for() {
        let door = door().await;
        let answer = ask(door, "127.0.0.1").await.to_ascii_lowercase();
        assert!(answer.contains("connection: close"), "{answer}");
        let mut idle = TcpStream::connect(door).await.unwrap();
        let closed = tokio::time::timeout(HEAD + Duration::from_secs(3), idle.read(&mut [0; 1])).await;
        assert!(closed.is_ok(), "it is still open");
    }

    #[tokio::test]
    async fn who_has_most_yields_first() {
        let place = |address: [u8; 4]| Place {
            source: address.into(),
            is_asking: Arc::new(AtomicBool::new(true)),
            task: tokio::spawn(async {}),
        };
        let (own, one, other) = ([127, 0, 0, 1], [192, 0, 2, 1], [192, 0, 2, 2]);
        let places: Vec<_> = [own, one, other, other, own].map(place).into();
        assert_eq!(who_yields(&places), Some(2), "the older of two, and nobody of this machine");
        places[2].is_asking.store(false, Ordering::Relaxed);
        assert_eq!(who_yields(&places), Some(3), "it is being answered");
    }
}
