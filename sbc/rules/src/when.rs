//! Days and times in a zone.
//!
//! A span is a matter of the clock on the wall. Where clocks go forward, what they skip does not happen; where they go back, what
//! they show twice happens twice. A span over midnight belongs to the day it begins on.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::row::RuleRow;

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Days that are looked ahead: the one Sunday whose span the clocks skip, and a week to the next, and one for the zone's shift.
const AHEAD: i64 = 16;

/// One span on some days of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct When {
    zone: TimeZone,
    name: Box<str>,
    /// Monday is bit 0.
    days: u8,
    /// Minute of the day.
    from: u16,
    /// Minute, of the next day if it is not after `from`; [`DAY`] is midnight.
    until: u16,
}

impl When {
    /// What a row says of time; `None` if nothing. Everything that is wrong with it goes to `find`.
    pub(crate) fn of(row: &RuleRow, find: &mut dyn FnMut(String)) -> Option<Self> {
        let zone = row.zone.as_deref();
        if row.days.is_empty() && row.from.is_none() && row.until.is_none() {
            if zone.is_some() {
                find("has a zone, but neither days nor times: add them, or take the zone away".into());
            }
            return None;
        }
        let known = zone.and_then(|name| TimeZone::get(name).ok());
        match (zone, &known) {
            (None, _) => find("has days or times, but no zone: name one, as Europe/Berlin".into()),
            (Some(name), None) => find(format!("names the zone \"{name}\", which nobody knows")),
            _ => {}
        }
        let mut days = 0;
        for &day in &row.days {
            if (1..=7).contains(&day) {
                days |= 1 << (day - 1);
            } else {
                find(format!("names day {day}: Monday is 1, Sunday is 7"));
            }
        }
        let from = minute(row.from.as_deref(), 0, DAY - 1, find);
        let until = minute(row.until.as_deref(), DAY, DAY, find);
        let (from, until) = (from?, until?);
        if from == until {
            find("has a time span that is empty: from and until are the same".into());
            return None;
        }
        let days = if row.days.is_empty() { 0x7f } else { days };
        Some(Self { zone: known?, name: zone?.into(), days, from, until })
    }

    /// Whether a moment is in it.
    pub fn holds(&self, at: Timestamp) -> bool {
        let local = self.zone.to_datetime(at);
        let minute = minute_of(local.time());
        let today = self.has(local.weekday());
        if self.from < self.until {
            return today && (self.from..self.until).contains(&minute);
        }
        today && minute >= self.from || self.has(local.weekday().previous()) && minute < self.until
    }

    /// When it opens or closes next, after a moment; `None` if never.
    pub fn next_change(&self, after: Timestamp) -> Option<Timestamp> {
        let today = self.zone.to_datetime(after).date();
        let mut moments: Vec<Timestamp> = Vec::new();
        for ahead in -1..=AHEAD {
            let Ok(day) = today.checked_add(Span::new().days(ahead)) else { continue };
            for minute in [self.from, self.until % DAY] {
                moments.extend(self.moments(day, minute));
            }
        }
        let last = moments.iter().max().copied()?;
        let shifts = self.zone.following(after).map(|shift| shift.timestamp());
        moments.extend(shifts.take_while(|shift| *shift <= last));
        moments.retain(|moment| *moment > after);
        moments.sort_unstable();
        let now = self.holds(after);
        moments.into_iter().find(|moment| self.holds(*moment) != now)
    }

    /// What it missed by.
    pub(crate) fn missed(&self, at: Timestamp) -> String {
        let local = self.zone.to_datetime(at);
        let (now, zone) = (local.strftime("%A %H:%M"), &self.name);
        format!("it is {now} in {zone}, not {}", self.words())
    }

    fn words(&self) -> String {
        let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let span = if (self.from, self.until) == (0, DAY) {
            String::new()
        } else {
            format!("between {} and {}", clock(self.from), clock(self.until))
        };
        let names = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
        let named = names.iter().enumerate().filter(|(day, _)| self.days & (1 << day) != 0);
        let days: Vec<&str> = named.map(|(_, name)| *name).collect();
        let days = if days.len() == 7 { String::new() } else { format!("on {}", days.join(", ")) };
        [span, days].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn has(&self, day: Weekday) -> bool {
        self.days & (1 << day.to_monday_zero_offset()) != 0
    }

    /// The moments at which the wall shows a minute of a day: one, two where clocks go back, none where it is skipped.
    fn moments(&self, day: Date, minute: u16) -> impl Iterator<Item = Timestamp> {
        let time = Time::new((minute / 60) as i8, (minute % 60) as i8, 0, 0).unwrap_or(Time::midnight());
        let local = DateTime::from_parts(day, time);
        let ambiguous = self.zone.to_ambiguous_timestamp(local);
        [ambiguous.earlier().ok(), ambiguous.later().ok()].into_iter().flatten()
    }
}

fn minute_of(time: Time) -> u16 {
    let part = |part: i8| u16::from(part.unsigned_abs());
    part(time.hour()) * 60 + part(time.minute())
}

fn minute(text: Option<&str>, otherwise: u16, most: u16, find: &mut dyn FnMut(String)) -> Option<u16> {
    let Some(text) = text else { return Some(otherwise) };
    let number = |digits: &str| digits.parse::<u16>().ok().filter(|_| digits.len() == 2);
    let read = text.split_once(':').and_then(|(hour, minute)| {
        let (hour, minute) = (number(hour)?, number(minute)?);
        (minute < 60).then_some(hour * 60 + minute)
    });
    let read = read.filter(|minute| *minute <= most);
    if read.is_none() {
        find(format!("has the time \"{text}\": write HH:MM, 00:00 to 23:59, or 24:00 as an end"));
    }
    read
}
