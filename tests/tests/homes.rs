//! NATs in namespaces, the program's and the kernel's, seen by UDP probes from both sides.

#![allow(clippy::unwrap_used, reason = "a test's own helpers")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crush_tests::home::{Home, Player, two_homes};
use crush_tests::socket::{seen, udp};
use crush_tests::{Lab, Network, skip_unless_possible};
use nat_lab::Kind;
use nat_lab::nft::Rules;

/// A home with one host and two public addresses with two ports each, as RFC 5780 asks of a server.
struct Bench {
    lab: Lab,
    home: Home,
    phone: UdpSocket,
    servers: [UdpSocket; 3],
}

impl Bench {
    fn new(player: Player, options: &[&str]) -> Self {
        let mut lab = Lab::new("homes").unwrap();
        let mut home = Home::new(&mut lab, "a", player, 20, options).unwrap();
        let (host, address) = home.host(&mut lab).unwrap();
        lab.host("s1", Network::Access, 51).unwrap();
        lab.host("s2", Network::Access, 52).unwrap();
        let phone = udp(&lab, &host, &format!("{address}:15004")).unwrap();
        let server = |host, port| udp(&lab, host, &format!("0.0.0.0:{port}")).unwrap();
        let servers = [server("s1", 3478), server("s1", 3479), server("s2", 3478)];
        let bench = Self { lab, home, phone, servers };
        // The first packet of a path waits for ARP.
        bench.out(0);
        bench.out(2);
        bench.home.flush(&bench.lab).unwrap();
        bench
    }

    fn address(index: usize) -> SocketAddr {
        ["198.51.100.51:3478", "198.51.100.51:3479", "198.51.100.52:3478"][index].parse().unwrap()
    }

    /// What a server sees of the phone.
    fn out(&self, server: usize) -> Option<SocketAddr> {
        seen(&self.phone, Self::address(server), &self.servers[server]).unwrap()
    }

    /// Whether what a server sends to an address of the router comes in, and looks as if from the server.
    fn comes_in(&self, server: usize, external: SocketAddr) -> bool {
        seen(&self.servers[server], external, &self.phone).unwrap() == Some(Self::address(server))
    }

    /// Mapping and filtering as RFC 5780 finds them: `E`, `A` or `P` for EI, AD and APD.
    fn behaviour(&self) -> String {
        let [first, same, other] = [0, 1, 2].map(|server| self.out(server).unwrap());
        let mapping = if other == first {
            "E"
        } else if same == first {
            "A"
        } else {
            "P"
        };
        self.home.flush(&self.lab).unwrap();
        let external = self.out(0).unwrap();
        assert!(self.comes_in(0, external), "an answer comes in");
        let filtering = if self.comes_in(2, external) {
            "E"
        } else if self.comes_in(1, external) {
            "A"
        } else {
            "P"
        };
        format!("{mapping}{filtering}")
    }
}

#[test]
fn each_kind_maps_and_filters_as_its_row_says() {
    skip_unless_possible!("conntrack");
    let rows = [
        (Player::Tun(Kind::FullCone), "EE"),
        (Player::Tun(Kind::RestrictedCone), "EA"),
        (Player::Tun(Kind::Cone), "EP"),
        (Player::Tun(Kind::SymmetricAddress), "AP"),
        (Player::Tun(Kind::SymmetricSequential), "PP"),
        (Player::Tun(Kind::SymmetricRandom), "PP"),
        (Player::Tun(Kind::LinuxCone), "EP"),
        (Player::Nft(Rules::Cone), "EP"),
        (Player::Nft(Rules::SymmetricRandom), "PP"),
        (Player::Nft(Rules::SymmetricSequential), "PP"),
        (Player::Nft(Rules::FullCone), "EE"),
    ];
    for (player, expected) in rows {
        assert_eq!(Bench::new(player, &[]).behaviour(), expected, "{player}");
    }
}

#[test]
fn ports_follow_each_other_where_they_are_sequential_and_nothing_passes_where_udp_is_blocked() {
    skip_unless_possible!("conntrack");
    for player in [Player::Tun(Kind::SymmetricSequential), Player::Nft(Rules::SymmetricSequential)] {
        let bench = Bench::new(player, &[]);
        let ports = [0, 1, 2].map(|server| bench.out(server).unwrap().port());
        assert_eq!([ports[1] - ports[0], ports[2] - ports[1]], [1, 1], "{player}: {ports:?}");
    }
    for player in [Player::Tun(Kind::UdpBlocked), Player::Nft(Rules::UdpBlocked)] {
        assert_eq!(Bench::new(player, &[]).out(0), None, "{player}");
    }
}

#[test]
fn a_mapping_is_forgotten_rebound_and_cut_on_command() {
    skip_unless_possible!("conntrack");
    let bench = Bench::new(Player::Tun(Kind::Cone), &["--timeout", "1s"]);
    let external = bench.out(0).unwrap();
    assert!(bench.comes_in(0, external));
    std::thread::sleep(Duration::from_millis(1_100));
    assert!(!bench.comes_in(0, external), "forgotten after a second");
    assert_eq!(bench.out(0), Some(external), "and made again");
    bench.home.tell(&["rebind"]).unwrap();
    assert!(bench.out(0).is_some_and(|after| after != external), "with another port");
    bench.home.cut(&bench.lab, "198.51.100.51".parse().unwrap()).unwrap();
    assert_eq!(bench.out(0), None);
    assert!(bench.out(2).is_some(), "others are still reached");
    bench.home.restore(&bench.lab, "198.51.100.51".parse().unwrap()).unwrap();
    assert!(bench.out(0).is_some());
}

#[test]
fn a_flood_is_cut_to_the_limit_by_program_and_kernel() {
    skip_unless_possible!("conntrack");
    for player in [Player::Tun(Kind::Cone), Player::Nft(Rules::Cone)] {
        let is_tun = matches!(player, Player::Tun(_));
        let bench = Bench::new(player, if is_tun { &["--flows", "30", "--burst", "30"] } else { &[] });
        if !is_tun {
            bench.home.limit(&bench.lab, 30, 30).unwrap();
        }
        std::thread::sleep(Duration::from_millis(1_100));
        // From 200 ports to one: 200 flows.
        let start = Instant::now();
        for port in 0..200 {
            let socket = udp(&bench.lab, "a-1", &format!("0.0.0.0:{}", 16_000 + port)).unwrap();
            socket.send_to(b"flood", Bench::address(0)).unwrap();
        }
        let allowed = 31 + (start.elapsed().as_secs_f64() * 30.0) as usize;
        let passed = std::iter::from_fn(|| bench.servers[0].recv_from(&mut [0; 64]).ok()).count();
        assert!((30..=allowed.max(32)).contains(&passed), "{player}: {passed} of 200, {allowed} allowed");
    }
}

#[test]
fn the_line_is_as_set_at_a_thousand_packets_a_second_and_more() {
    skip_unless_possible!("conntrack");
    const COUNT: usize = 2_000;
    let bench = Bench::new(Player::Tun(Kind::Cone), &["--delay", "40ms", "--jitter", "20ms", "--loss", "5%"]);
    let start = Instant::now();
    let receiver = bench.servers[0].try_clone().unwrap();
    let received = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let arrivals = std::iter::from_fn(|| {
            let (length, _) = receiver.recv_from(&mut buffer).ok()?;
            let sent = u64::from_be_bytes(buffer[..length].try_into().ok()?);
            Some(start.elapsed().saturating_sub(Duration::from_micros(sent)))
        });
        arrivals.collect::<Vec<_>>()
    });
    for _ in 0..COUNT {
        let now = start.elapsed().as_micros() as u64;
        bench.phone.send_to(&now.to_be_bytes(), Bench::address(0)).unwrap();
        std::thread::sleep(Duration::from_micros(300));
    }
    let took = start.elapsed();
    let mut delays = received.join().unwrap();
    delays.sort();
    println!("{COUNT} sent in {took:?}, {} arrived, median {:?}", delays.len(), delays[delays.len() / 2]);
    assert!((COUNT * 92 / 100..COUNT * 98 / 100).contains(&delays.len()), "{} of {COUNT}", delays.len());
    assert!(delays[0] >= Duration::from_millis(40), "{:?}", delays[0]);
    let median = delays[delays.len() / 2];
    // Order is kept, so at this rate each waits for the slowest of those before it: near the upper end.
    assert!((Duration::from_millis(45)..Duration::from_millis(75)).contains(&median), "{median:?}");
}

#[test]
fn two_homes_are_punched_until_the_path_between_them_is_cut() {
    skip_unless_possible!("conntrack");
    let mut lab = Lab::new("two").unwrap();
    let players = [Player::Tun(Kind::Cone), Player::Nft(Rules::Cone)];
    let [a, b] = two_homes(&mut lab, players, &["--delay", "10ms"]).unwrap();
    let [first, second] =
        [("a-1", &a), ("b-1", &b)].map(|(host, _)| udp(&lab, host, "0.0.0.0:15004").unwrap());
    let [to_a, to_b] = [&a, &b].map(|home| SocketAddr::from((home.external(), 15004)));
    let punched = || {
        // Both ports are kept, so that no server is needed to know them.
        (0..3).any(|_| {
            let there = seen(&first, to_b, &second).unwrap();
            let back = seen(&second, to_a, &first).unwrap();
            there.is_some() && back.is_some()
        })
    };
    assert!(punched());
    a.cut(&lab, b.external()).unwrap();
    assert!(!punched());
    a.restore(&lab, b.external()).unwrap();
    assert!(punched());
}
