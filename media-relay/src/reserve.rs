//! Steered ports are bound by nobody, so the kernel could give one to a program that asks for any port, and that program would never
//! hear an answer: they are reserved (`ip_local_reserved_ports`, ip-sysctl), as long as a process of ours needs them.
//!
//! Several processes may need the same ports, and others may have reserved some before: so a list beside the kernel's says who added
//! which. What a process has added is taken away when it ends; what another still needs is that one's from then on. A process that was
//! killed takes nothing away: the next one of ours, at its start or end, does it for it.

use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// What the kernel takes in one piece.
const LONGEST: usize = 64 * 1024;
/// Under systemd the directory of the unit, elsewhere the system's.
const DIRECTORY: &str = "/run/crush-sbc";

/// Ports of 0 to 65,535, as a set.
#[derive(Clone, PartialEq, Eq)]
struct PortSet(Box<[u64; 1024]>);

impl PortSet {
    fn new() -> Self {
        Self(Box::new([0; 1024]))
    }

    fn of<'a>(ranges: impl IntoIterator<Item = &'a RangeInclusive<u16>>) -> Self {
        let mut set = Self::new();
        for range in ranges {
            for port in range.clone() {
                if let Some(word) = set.0.get_mut(usize::from(port) / 64) {
                    *word |= 1 << (port % 64);
                }
            }
        }
        set
    }

    fn has(&self, port: u16) -> bool {
        self.0.get(usize::from(port) / 64).is_some_and(|word| word >> (port % 64) & 1 == 1)
    }

    fn with(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        let mut set = Self::new();
        for ((out, one), other) in set.0.iter_mut().zip(self.0.iter()).zip(other.0.iter()) {
            *out = join(*one, *other);
        }
        set
    }

    fn and(&self, other: &Self) -> Self {
        self.with(other, |one, other| one & other)
    }

    fn or(&self, other: &Self) -> Self {
        self.with(other, |one, other| one | other)
    }

    fn without(&self, other: &Self) -> Self {
        self.with(other, |one, other| one & !other)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// As the kernel writes it: `8080,9000-9010`.
    fn read(text: &str) -> Self {
        let ranges = text.trim().split(',').filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        });
        Self::of(&ranges.collect::<Vec<RangeInclusive<u16>>>())
    }
}

impl std::fmt::Display for PortSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut first: Option<u16> = None;
        let mut comma = "";
        for port in 0..=u16::MAX {
            if !self.has(port) {
                continue;
            }
            let from = *first.get_or_insert(port);
            if port < u16::MAX && self.has(port.saturating_add(1)) {
                continue;
            }
            if from == port {
                write!(formatter, "{comma}{port}")?;
            } else {
                write!(formatter, "{comma}{from}-{port}")?;
            }
            (comma, first) = (",", None);
        }
        Ok(())
    }
}

/// A process of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    id: u32,
    /// In the kernel's ticks since it started: numbers are used again.
    started: u64,
}

impl Process {
    fn own() -> Option<Self> {
        let id = std::process::id();
        Some(Self { id, started: started(id)? })
    }

    fn lives(&self) -> bool {
        started(self.id) == Some(self.started)
    }
}

/// Field 22 of `stat` (proc_pid_stat(5)); the second, a name in parentheses, may hold anything.
fn started(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A line of the list.
#[derive(Clone)]
struct Claim {
    process: Process,
    /// The list is the kernel's of one network namespace.
    namespace: u64,
    needs: PortSet,
    /// Of these, what was not reserved before.
    added: PortSet,
}

impl Claim {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (id, started, namespace) = (number()?, number()?, number()?);
        let process = Process { id: u32::try_from(id).ok()?, started };
        let mut set = || words.next().map(PortSet::read);
        Some(Self { process, namespace, needs: set()?, added: set()? })
    }

    fn write(&self) -> String {
        let Process { id, started } = self.process;
        format!("{id} {started} {} {} {}\n", self.namespace, self.needs, self.added)
    }
}

/// Takes claims out of the list of a namespace: what is reserved then. What others need is theirs now.
fn release(
    claims: &mut Vec<Claim>,
    namespace: u64,
    reserved: &PortSet,
    is_gone: impl Fn(&Process) -> bool,
) -> PortSet {
    let is_released = |claim: &Claim| claim.namespace == namespace && is_gone(&claim.process);
    let released = claims.iter().filter(|claim| is_released(claim));
    let mut free = released.fold(PortSet::new(), |free, claim| free.or(&claim.added));
    claims.retain(|claim| !is_released(claim));
    for claim in claims.iter_mut().filter(|claim| claim.namespace == namespace) {
        let inherited = free.and(&claim.needs);
        claim.added = claim.added.or(&inherited);
        free = free.without(&inherited);
    }
    reserved.without(&free)
}

/// Ports that stay reserved until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    /// `None`: nothing had to be reserved, or nobody keeps a list.
    process: Option<Process>,
}

impl Reservation {
    /// Reserves what of these ports the kernel chooses from.
    pub(crate) fn make(ports: &[RangeInclusive<u16>]) -> io::Result<Self> {
        let Some(chosen) = read_range(&fs::read_to_string(RANGE)?) else { return Ok(Self { process: None }) };
        let needs = PortSet::of(ports).and(&PortSet::of([&chosen]));
        let process = Process::own();
        change(|claims, namespace, reserved| {
            let reserved = release(claims, namespace, reserved, |process| !process.lives());
            if needs.is_empty() {
                return reserved;
            }
            if let Some(process) = &process {
                let added = needs.without(&reserved);
                claims.push(Claim { process: process.clone(), namespace, needs: needs.clone(), added });
            }
            reserved.or(&needs)
        })?;
        Ok(Self { process: process.filter(|_| !needs.is_empty()) })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(own) = self.process.take() else { return };
        let released = change(|claims, namespace, reserved| {
            release(claims, namespace, reserved, |process| *process == own || !process.lives())
        });
        if let Err(error) = released {
            tracing::warn!(%error, "net.ipv4.ip_local_reserved_ports keeps the media ports");
        }
    }
}

/// Changes the kernel's list together with ours. Without a place for ours the kernel's is changed all the same, for good.
fn change(how: impl FnOnce(&mut Vec<Claim>, u64, &PortSet) -> PortSet) -> io::Result<()> {
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    // One read and one write, each of the whole list: the kernel knows no second part, and what is not written is no longer reserved.
    let kernel = File::options().read(true).open(Path::new(RESERVED))?;
    // Another process of ours may be at it.
    kernel.lock()?;
    let mut text = vec![0; LONGEST];
    let length = kernel.read_at(&mut text, 0)?;
    let reserved = PortSet::read(&String::from_utf8_lossy(text.get(..length).unwrap_or_default()));
    let list = list();
    let mut claims = read_claims(list.as_deref());
    let before: String = claims.iter().map(Claim::write).collect();
    let wanted = how(&mut claims, namespace, &reserved);
    if wanted != reserved {
        // The kernel takes an empty list as a line of its own.
        let text = format!("{wanted}\n");
        if text.len() > LONGEST {
            return Err(io::Error::other("the list of reserved ports is too long"));
        }
        let kernel = File::options().write(true).open(Path::new(RESERVED))?;
        if kernel.write_at(text.as_bytes(), 0)? < text.len() {
            return Err(io::Error::other("the list of reserved ports is too long"));
        }
    }
    let after: String = claims.iter().map(Claim::write).collect();
    if after != before
        && let Some(path) = list
        && let Err(error) = fs::write(&path, after)
    {
        tracing::warn!(%error, path = %path.display(), "who reserved which ports can't be noted: they stay reserved when this process ends");
    }
    Ok(())
}

/// Where the list is.
fn list() -> Option<PathBuf> {
    let directory = Path::new(DIRECTORY);
    if !directory.is_dir() {
        fs::DirBuilder::new().mode(0o755).create(directory).ok()?;
    }
    Some(directory.join("reserved_ports"))
}

fn read_claims(list: Option<&Path>) -> Vec<Claim> {
    let text = list.and_then(|list| fs::read_to_string(list).ok()).unwrap_or_default();
    text.lines().filter_map(Claim::read).collect()
}

fn read_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

impl std::fmt::Debug for PortSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: u64 = 4;

    fn claim(id: u32, needs: &str, added: &str) -> Claim {
        let process = Process { id, started: 9 };
        let [needs, added] = [needs, added].map(PortSet::read);
        Claim { process, namespace: NAMESPACE, needs, added }
    }

    #[test]
    fn a_set_reads_what_it_writes() {
        for text in ["", "0", "8080,9000-9010,65535", "0-65535", "20000-29999,40000-40001"] {
            assert_eq!(PortSet::read(text).to_string(), text);
        }
        assert_eq!(PortSet::read(" 5-7,6-9,x,11-\n").to_string(), "5-9");
        let line = claim(7, "20000-29999", "20000-24999").write();
        assert_eq!(line, "7 9 4 20000-29999 20000-24999\n");
        assert_eq!(Claim::read(line.trim_end()).unwrap().write(), line);
        let nothing = claim(7, "5", "").write();
        assert_eq!(Claim::read(nothing.trim_end_matches('\n')).unwrap().write(), nothing);
    }

    #[test]
    fn who_ends_leaves_what_was_there_before_and_what_others_need() {
        let reserved = PortSet::read("8080,20000-29999");
        let mut claims = vec![claim(1, "20000-24999", "20000-24999"), claim(2, "24000-29999", "25000-29999")];
        let reserved = release(&mut claims, NAMESPACE, &reserved, |process| process.id == 1);
        assert_eq!(reserved.to_string(), "8080,24000-29999");
        assert_eq!(claims.len(), 1);
        let reserved = release(&mut claims, NAMESPACE, &reserved, |process| process.id == 2);
        assert_eq!(reserved.to_string(), "8080");
    }

    #[test]
    fn claims_of_another_namespace_are_not_touched() {
        let reserved = PortSet::read("8080");
        let mut claims = vec![claim(1, "8080", "8080")];
        assert_eq!(release(&mut claims, NAMESPACE + 1, &reserved, |_| true), reserved);
        assert_eq!(claims.len(), 1);
    }

    #[test]
    fn this_process_lives_and_its_number_with_another_start_does_not() {
        let own = Process::own().unwrap();
        assert!(own.lives());
        assert!(!Process { started: own.started + 1, ..own }.lives());
    }
}
