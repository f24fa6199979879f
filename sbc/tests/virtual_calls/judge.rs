//! What must hold once nothing happens any more.

use std::collections::{BTreeMap, BTreeSet};

use sip_engine::event::{CallEventKind, EndCause};
use sip_engine::ua::{CallNumber, Ending};
use sip_wire::Message;

use crate::description::read;
use crate::world::World;

/// One call as the SBC has it.
#[derive(Debug, Default)]
struct Recorded {
    label: String,
    answered: bool,
    ended: Option<EndCause>,
}

impl World {
    /// 64·T1 after the last event: both legs are up, or both ended.
    pub(crate) fn judge_quiet(&mut self) {
        for call in self.recorded() {
            let legs = self.legs(&call.label);
            let up: Vec<(usize, CallNumber)> =
                legs.iter().copied().filter(|(phone, call)| self.phones[*phone].is_up(*call)).collect();
            let alive = legs.iter().filter(|(phone, call)| self.is_alive(*phone, *call)).count();
            let label = &call.label;
            match (call.ended, call.answered) {
                (Some(cause), _) if alive > 0 => {
                    self.problems.push(format!("{label} ended with {cause:?}, and a phone still has it"))
                }
                (Some(_), _) => {}
                (None, false) => self.problems.push(format!("{label} neither ended nor was answered")),
                (None, true) if up.len() != 2 || alive != 2 => {
                    self.problems.push(format!("{label} is up, and {} phones have it", up.len()))
                }
                (None, true) => self.judge_media(label, up[0], up[1]),
            }
        }
    }

    /// After everybody has hung up nothing is left.
    pub(crate) fn judge_end(&mut self) {
        for call in self.recorded() {
            match call.ended {
                None => self.problems.push(format!("{} has no ended record", call.label)),
                Some(cause) => self.judge_cause(&call.label, cause),
            }
        }
        if !self.processes.are_idle() {
            self.problems.push(format!(
                "the engine is not idle: {:?} calls, transactions, bindings",
                self.processes.sizes()
            ));
        }
        if let Some(leftovers) = self.media.leftovers() {
            self.problems.push(format!("the media plane is not empty: {leftovers}"));
        }
        if !self.is_proxy_idle() {
            self.problems.push("the carrier's proxy is not idle".to_owned());
        }
        for phone in &self.phones {
            if !phone.agent.is_idle() {
                self.problems.push(format!("{} is not idle", phone.name));
            }
        }
        let problems = self.wishes.judge_end();
        self.problems.extend(problems);
        self.judge_hiding();
    }

    /// Calls of the records, and that each has one start, one end and no gap.
    fn recorded(&mut self) -> Vec<Recorded> {
        let mut calls: BTreeMap<u128, (u32, Recorded)> = BTreeMap::new();
        for event in &self.records {
            let (next, call) = calls.entry(event.call).or_default();
            if event.sequence != *next || call.ended.is_some() {
                self.problems.push(format!("record {} of {} out of order", event.sequence, call.label));
            }
            *next += 1;
            match &event.what {
                CallEventKind::Started(started) => {
                    if event.sequence != 0 {
                        self.problems.push("a call started twice".to_owned());
                    }
                    call.label = self.labels.get(started.call_id.as_bytes()).cloned().unwrap_or_default();
                }
                CallEventKind::Answered { .. } => call.answered = true,
                CallEventKind::Ended(ended) => call.ended = Some(ended.cause),
                CallEventKind::Changed(_) | CallEventKind::Path(_) | CallEventKind::Metered { .. } => {}
            }
        }
        let labels: BTreeSet<&String> = calls.values().map(|call| &call.1.label).collect();
        if labels.len() != calls.len() {
            self.problems.push("two records of one call".to_owned());
        }
        calls.into_values().map(|call| call.1).collect()
    }

    /// The phones' calls with a label.
    fn legs(&self, label: &str) -> Vec<(usize, CallNumber)> {
        let phones = self.phones.iter().enumerate();
        phones
            .flat_map(|(index, phone)| {
                let calls = phone.known.iter().filter(|(_, known)| known.label == label);
                calls.map(move |(call, _)| (index, *call))
            })
            .collect()
    }

    fn is_alive(&self, phone: usize, call: CallNumber) -> bool {
        self.phones[phone].agent.calls().any(|(number, _)| number == call)
    }

    /// What the two phones agreed on fits together, and the media plane joins just that.
    fn judge_media(&mut self, label: &str, one: (usize, CallNumber), other: (usize, CallNumber)) {
        let agreed = |leg: (usize, CallNumber)| self.phones[leg.0].agent.agreed(leg.1).cloned();
        let (Some(ones), Some(others)) = (agreed(one), agreed(other)) else {
            self.problems.push(format!("{label} is up and has agreed on nothing"));
            return;
        };
        let is_alone = self.wishes.changed.contains(label);
        for (speaker, hearer) in [(&ones, &others), (&others, &ones)] {
            let (said, heard) = (read(&speaker.local), read(&hearer.remote));
            let brief = |streams: &[crate::description::Stream]| -> Vec<_> {
                streams
                    .iter()
                    .map(|stream| {
                        let is_live = !stream.is_refused();
                        // Asked by media alone, a phone may name other codecs of those that it has.
                        let codecs = if is_alone { Vec::new() } else { stream.codecs.clone() };
                        // What is refused says nothing.
                        let rest = is_live.then(|| (codecs, stream.direction.clone()));
                        (stream.kind.clone(), is_live, rest)
                    })
                    .collect()
            };
            let (said, heard) = (brief(&said), brief(&heard));
            if said != heard {
                self.problems.push(format!("{label}: one phone said {said:?}, the other heard {heard:?}"));
                return;
            }
        }
        let now = self.now;
        for (speaker, hearer) in [(&ones, &others), (&others, &ones)] {
            let (source, target) = (read(&speaker.local), read(&speaker.remote));
            let (sink, seen) = (read(&hearer.local), read(&hearer.remote));
            for index in 0..source.len() {
                if source[index].is_refused() || target[index].is_refused() {
                    continue;
                }
                let expected = vec![(seen[index].address, sink[index].address)];
                match self.media.relay(source[index].address, target[index].address, now) {
                    Ok(way) if way == expected => {}
                    Ok(way) => self.problems.push(format!(
                        "{label}: m-line {index} from {} goes {way:?}, not {expected:?}",
                        source[index].address
                    )),
                    Err(problem) => self.problems.push(format!("{label}: m-line {index}: {problem}")),
                }
            }
        }
    }

    /// The record's cause matches what the phones saw.
    fn judge_cause(&mut self, label: &str, cause: EndCause) {
        let endings: Vec<Ending> = self
            .phones
            .iter()
            .flat_map(|phone| phone.endings.iter())
            .filter(|ending| ending.0 == label)
            .map(|ending| ending.2)
            .collect();
        let has = |wanted: &dyn Fn(Ending) -> bool| endings.iter().any(|ending| wanted(*ending));
        let fits = match cause {
            EndCause::Bye => has(&|ending| {
                matches!(ending, Ending::HungUp | Ending::NoAnswer | Ending::Lost(_) | Ending::NoAck)
            }),
            EndCause::Cancelled => has(&|ending| ending == Ending::Cancelled),
            EndCause::Busy => has(&|ending| matches!(ending, Ending::Refused(486 | 600))),
            EndCause::Declined => has(&|ending| matches!(ending, Ending::Refused(403 | 603))),
            EndCause::NotFound => has(&|ending| matches!(ending, Ending::Refused(404 | 481))),
            EndCause::NoAnswer => has(&|ending| matches!(ending, Ending::Refused(408 | 480))),
            EndCause::OwnPhone => has(&|ending| ending == Ending::Refused(486)),
            EndCause::NotRegistered => has(&|ending| ending == Ending::Refused(480)),
            EndCause::MediaRefused => {
                // Of a phone that hangs up before it has answered an offer the ACK comes first, without an answer.
                has(&|ending| {
                    matches!(
                        ending,
                        Ending::Refused(_)
                            | Ending::Bye
                            | Ending::NoAnswer
                            | Ending::HungUp
                            | Ending::Lost(481)
                    )
                })
            }
            // Whoever has hung up answers a request that crosses its BYE with 481.
            EndCause::Failed => has(&|ending| {
                matches!(ending, Ending::Refused(302 | 400..=606) | Ending::Bye | Ending::HungUp)
            }),
            EndCause::Unreachable => has(&|ending| matches!(ending, Ending::Refused(500 | 503))),
            EndCause::NoAck => has(&|ending| ending == Ending::Bye),
            _ => false,
        };
        if !fits {
            self.problems.push(format!("{label} ended with {cause:?}, and the phones saw {endings:?}"));
        }
    }

    /// No message to a phone holds an address, tag or Call-ID that only other legs know.
    fn judge_hiding(&mut self) {
        let mut own: Vec<BTreeSet<Vec<u8>>> = vec![BTreeSet::new(); self.phones.len()];
        let phone_of = |address| self.phones.iter().position(|phone| phone.address == address);
        for traced in &self.trace {
            let Some(phone) = phone_of(traced.from).or_else(|| phone_of(traced.to)) else { continue };
            let Ok(message) = Message::parse(traced.bytes.clone()) else { continue };
            let texts = &mut own[phone];
            texts.insert(message.call_id().unwrap_or_default().to_vec());
            for address in [message.from(), message.to()].into_iter().flatten() {
                texts.extend(address.tag().map(<[u8]>::to_vec));
            }
            texts.insert(self.phones[phone].address.ip().to_string().into_bytes());
        }
        let finders: Vec<Vec<memchr::memmem::Finder<'static>>> = own
            .iter()
            .map(|texts| texts.iter().map(|text| memchr::memmem::Finder::new(text).into_owned()).collect())
            .collect();
        for traced in &self.trace {
            let Some(phone) = phone_of(traced.to) else { continue };
            for (other, finders) in finders.iter().enumerate().filter(|(other, _)| *other != phone) {
                for finder in finders {
                    if !own[phone].contains(finder.needle()) && finder.find(&traced.bytes).is_some() {
                        self.problems.push(format!(
                            "{} was shown {} of {}",
                            self.phones[phone].name,
                            String::from_utf8_lossy(finder.needle()),
                            self.phones[other].name
                        ));
                        return;
                    }
                }
            }
        }
    }
}
