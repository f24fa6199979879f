use super::*;

const LOCAL: &str = "127.0.0.1";

/// Of one worker, at ports that no other test has; `None`, and it says so, where they cannot be steered.
fn ports(first: u16, is_steered: bool) -> Option<Ports> {
    let local: IpAddr = LOCAL.parse().unwrap();
    let realm = RealmMedia {
        addresses: vec![Address { bind: local, advertised: local }],
        ports: first..=first + 5,
        dscp: 46,
    };
    let steering = if is_steered {
        match Steering::attach(16, 16, None) {
            Ok(steering) => Some(Arc::new(steering)),
            Err(reason) => {
                eprintln!("SKIPPED with steered ports: {reason}");
                return None;
            }
        }
    } else {
        None
    };
    Some(Ports::new(&[realm], (0, 1), steering.as_ref(), Poll::new().unwrap()).unwrap())
}

#[test]
fn who_comes_after_opens_the_very_ports_that_were_closed_and_no_others() {
    for (is_steered, first) in [(false, 42_900), (true, 42_910)] {
        let Some(mut before) = ports(first, is_steered) else { continue };
        let pairs = [before.open(0, false).unwrap(), before.open(0, false).unwrap()];
        pairs.into_iter().for_each(|pair| before.close(pair));
        drop(before);
        let Some(mut after) = ports(first, is_steered) else { continue };
        // The odd one is enough: nothing is left half open.
        let taken = SocketAddr::new(pairs[1].address.ip(), pairs[1].address.port() + 1);
        let other = UdpSocket::bind(taken).unwrap();
        assert_eq!(after.reopen(0, pairs[1].address), None, "another program has it");
        drop((other, UdpSocket::bind(pairs[1].address).unwrap()));
        let again = after.reopen(0, pairs[1].address).unwrap();
        assert_eq!(again.address, pairs[1].address);
        assert_eq!(after.reopen(0, pairs[1].address), None, "twice");
        assert_eq!(after.reopen(1, pairs[0].address), None, "of another realm");
        let outside = SocketAddr::new(LOCAL.parse().unwrap(), first + 100);
        assert_eq!(after.reopen(0, outside), None, "of another range");
        // It is as good as any: it rests when it is closed, is had again all the same, and the others are still there.
        after.close(again);
        assert_eq!(after.reopen(0, again.address).map(|pair| pair.address), Some(again.address));
        let others: Vec<u16> =
            std::iter::from_fn(|| after.open(0, false)).map(|pair| pair.address.port()).collect();
        assert_eq!(others.len(), 2);
        assert!(!others.contains(&again.address.port()));
        assert_eq!(after.in_use, 3);
    }
}
