//! Steered ports are bound by nobody, so the kernel could give one to a program that asks for any port, and that program would never
//! hear an answer: they are reserved (`ip_local_reserved_ports`, ip-sysctl).

use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::Path;

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// What the kernel takes in one piece.
const LONGEST: usize = 64 * 1024;
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Reserves what of these ports the kernel chooses from, beside what is reserved already. They stay reserved: for who binds them by
/// number nothing changes.
pub(crate) fn reserve(ports: &[RangeInclusive<u16>]) -> io::Result<()> {
    let Some(chosen) = read_range(&fs::read_to_string(RANGE)?) else { return Ok(()) };
    let wanted: Vec<_> = ports.iter().filter(|ports| overlap(ports, &chosen)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let file = File::options().read(true).write(true).open(Path::new(RESERVED))?;
    // Another process of ours may be at it.
    file.lock()?;
    // One read and one write, each of the whole list: the kernel knows no second part, and what is not written is no longer reserved.
    let mut list = vec![0; LONGEST];
    let length = file.read_at(&mut list, 0)?;
    let list = String::from_utf8_lossy(list.get(..length).unwrap_or_default());
    let list = joined(list.trim(), &wanted);
    if file.write_at(list.as_bytes(), 0)? < list.len() {
        return Err(io::Error::other("the list of reserved ports is too long"));
    }
    Ok(())
}

fn read_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

fn overlap(one: &RangeInclusive<u16>, other: &RangeInclusive<u16>) -> bool {
    one.start() <= other.end() && other.start() <= one.end()
}

/// As the kernel wants it; it joins what overlaps.
fn joined(reserved: &str, more: &[&RangeInclusive<u16>]) -> String {
    let more = more.iter().map(|ports| format!("{}-{}", ports.start(), ports.end()));
    let all: Vec<String> =
        Some(reserved.to_owned()).filter(|reserved| !reserved.is_empty()).into_iter().chain(more).collect();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_stays_so() {
        assert_eq!(joined("", &[&(20_000..=29_999)]), "20000-29999");
        assert_eq!(
            joined("8080,9000-9010", &[&(20_000..=29_999), &(40_000..=40_001)]),
            "8080,9000-9010,20000-29999,40000-40001"
        );
    }

    #[test]
    fn only_what_the_kernel_would_choose_matters() {
        let chosen = read_range("32768\t60999\n").unwrap();
        assert!(overlap(&(20_000..=32_768), &chosen));
        assert!(overlap(&(40_000..=40_001), &chosen));
        assert!(overlap(&(60_999..=65_535), &chosen));
        assert!(!overlap(&(20_000..=32_767), &chosen));
        assert!(!overlap(&(61_000..=65_535), &chosen));
    }
}
