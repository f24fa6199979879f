//! `[release]` in the file, and what realms say of it.

use std::time::Duration;

use media_core::path::Settings;
use media_core::policy::Mode;
use media_wire::sdp::crush::Temper;
use serde::Deserialize;
use toml::Spanned;

/// `[release]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseFile {
    /// Groups of networks whose hosts reach each other without a NAT.
    pub routable: Vec<Vec<Spanned<String>>>,
    /// Public addresses of carriers' NATs: sharing one says nothing.
    pub carrier_nat: Vec<Spanned<String>>,
    /// What two realms have of their own, whatever each says.
    pub pair: Vec<Spanned<PairFile>>,
    /// How long a call is left alone after its answer, ms.
    pub settle_ms: u64,
    /// How long a trial lasts, ms.
    pub trial_ms: u64,
    /// Rest between a return and the next try of a path that has worked, seconds.
    pub rest_seconds: u64,
    /// How often such a path may fail before the call stays on the relay.
    pub failures: u8,
    /// Loss in percent, in two reports in a row, that ends a direct path.
    pub loss_percent: u32,
    /// Jitter in ms that ends it.
    pub jitter_ms: u64,
    /// How long phones in networks are left alone whose path has failed twice, seconds.
    pub remember_seconds: u64,
    /// Share of calls that stay for no reason, and of the others that come back, percent.
    pub cover_percent: u32,
}

impl Default for ReleaseFile {
    fn default() -> Self {
        let settings = Settings::default();
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            routable: Vec::new(),
            carrier_nat: Vec::new(),
            pair: Vec::new(),
            settle_ms: milliseconds(settings.settle),
            trial_ms: milliseconds(settings.trial),
            rest_seconds: settings.rest.as_secs(),
            failures: settings.failures,
            loss_percent: settings.loss_percent,
            jitter_ms: milliseconds(settings.jitter),
            remember_seconds: settings.remember.as_secs(),
            cover_percent: settings.cover_percent,
        }
    }
}

/// `[[release.pair]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairFile {
    /// Two names of realms; twice the same for the calls inside one.
    pub realms: [String; 2],
    /// What holds between them.
    pub policy: ReleaseKind,
    /// Their networks reach each other: phones whose reports could not prove it leave the relay as well.
    #[serde(default)]
    pub certain: bool,
}

/// `release` of a realm, `policy` of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseKind {
    /// Media stays on the relay.
    #[default]
    Anchor,
    /// Audio does; video of two endpoints in CRUSH may leave.
    Video,
    /// It is released where that is likely to work.
    Allow,
    /// It is released wherever it can work, and tried again after a failure.
    Prefer,
}

/// `temper` of a realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemperKind {
    /// 200 new flows a second.
    Fast,
    /// 25.
    Normal,
    /// 20.
    Stealth,
}

impl From<TemperKind> for Temper {
    fn from(kind: TemperKind) -> Self {
        match kind {
            TemperKind::Fast => Self::Fast,
            TemperKind::Normal => Self::Normal,
            TemperKind::Stealth => Self::Stealth,
        }
    }
}

/// `ice` of a realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IceKind {
    /// ICE lines are taken out, and none of ours stand in for them.
    Off,
    /// Phones that offer ICE are answered with it.
    Answer,
    /// It is also offered to phones that are called by one that speaks it.
    Offer,
}

impl From<ReleaseKind> for Mode {
    fn from(kind: ReleaseKind) -> Self {
        match kind {
            ReleaseKind::Anchor => Mode::Anchor,
            ReleaseKind::Video => Mode::Video,
            ReleaseKind::Allow => Mode::Allow,
            ReleaseKind::Prefer => Mode::Prefer,
        }
    }
}
