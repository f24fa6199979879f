//! A list of networks that is searched by halving, however long it is.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks of both families, as sorted ranges that do not touch. An IPv4 address and its IPv6-mapped form are the same.
#[derive(Debug, Clone, Default)]
pub struct AddressList {
    /// First and last address of each.
    ranges: Vec<(u128, u128)>,
}

impl AddressList {
    /// Whether nothing is on it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether one of its networks holds the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = number(address);
        let after = self.ranges.partition_point(|range| range.0 <= number);
        after.checked_sub(1).and_then(|index| self.ranges.get(index)).is_some_and(|range| number <= range.1)
    }
}

impl FromIterator<IpNet> for AddressList {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut ranges: Vec<_> =
            networks.into_iter().map(|net| (number(net.network()), number(net.broadcast()))).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let overlaps = next.0 <= kept.1.saturating_add(1);
            if overlaps {
                kept.1 = kept.1.max(next.1);
            }
            overlaps
        });
        Self { ranges }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_overlap_or_touch_hold_what_each_of_them_held() {
        let nets = ["10.0.0.0/24", "10.0.0.128/25", "10.0.1.0/24", "192.0.2.7/32", "2001:db8::/32"];
        let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
        let list: AddressList = nets.iter().copied().collect();
        assert_eq!(list.ranges.len(), 3);
        let edges = [
            "9.255.255.255",
            "10.0.0.0",
            "10.0.1.255",
            "10.0.2.0",
            "192.0.2.6",
            "192.0.2.7",
            "192.0.2.8",
            "::ffff:10.0.0.9",
            "2001:db7:ffff::",
            "2001:db8::1",
            "2001:db9::",
        ];
        for edge in edges {
            let address: IpAddr = edge.parse().unwrap();
            let held = nets.iter().any(|net| net.contains(&address.to_canonical()));
            assert_eq!(list.contains(address), held, "{edge}");
        }
        assert!(!AddressList::default().contains("10.0.0.1".parse().unwrap()));
    }
}
