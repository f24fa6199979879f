//! Which calls may leave the relay, and within which limits: what `[release]` and the realms say, as one policy.

use std::collections::HashSet;
use std::time::Duration;

use ipnet::IpNet;
use media_core::path::Settings;
use media_core::path::place::Networks;
use media_core::policy::{Ice, PairRelease, RealmRelease, ReleasePolicy};
use toml::Spanned;

use super::file::RealmFile;
use super::release_file::{IceKind, ReleaseFile, ReleaseKind};
use super::text::read_network;

impl RealmFile {
    /// Without release ICE is of no use: media goes to a public address of ours.
    fn ice(&self) -> Ice {
        match (self.ice, self.release) {
            (Some(IceKind::Off), _) | (None, ReleaseKind::Anchor | ReleaseKind::Video) => Ice::Off,
            (Some(IceKind::Answer), _) => Ice::Answer,
            (Some(IceKind::Offer), _) | (None, _) => Ice::Offer,
        }
    }
}

/// The policy of the media plane; a mistake is an offset in the file, and what is wrong.
pub(super) fn read(
    file: &ReleaseFile,
    realms: &[Spanned<RealmFile>],
) -> Result<ReleasePolicy, (usize, String)> {
    let networks = |list: &[Spanned<String>]| -> Result<Vec<IpNet>, (usize, String)> {
        list.iter()
            .map(|text| read_network(text.get_ref()).map_err(|what| (text.span().start, what)))
            .collect()
    };
    let mut routable = Vec::new();
    for group in &file.routable {
        let group = networks(group)?;
        if group.is_empty() {
            return Err((
                0,
                "release.routable has an empty group: name its networks, or remove it".to_owned(),
            ));
        }
        routable.push(group);
    }
    let networks = Networks { routable, carrier_nat: networks(&file.carrier_nat)?, ..Networks::default() };
    limits(file)?;
    let mut pairs = Vec::new();
    let mut seen = HashSet::new();
    for entry in &file.pair {
        let (at, pair) = (entry.span().start, entry.get_ref());
        let mut numbers = [0_u16; 2];
        for (number, name) in numbers.iter_mut().zip(&pair.realms) {
            let found = realms.iter().position(|realm| realm.get_ref().name == *name);
            let found = found.ok_or_else(|| {
                (at, format!("release.pair: no realm is called `{name}`: write the names of two realms"))
            })?;
            *number = found as u16;
        }
        numbers.sort_unstable();
        if !seen.insert(numbers) {
            let [one, other] = &pair.realms;
            return Err((at, format!("release.pair: `{one}` and `{other}` stand here twice: keep one")));
        }
        if pair.certain && matches!(pair.policy, ReleaseKind::Anchor | ReleaseKind::Video) {
            let what = "release.pair: `certain = true` beside a `policy` that moves no phone: write \"allow\" or \"prefer\", or remove it";
            return Err((at, what.to_owned()));
        }
        pairs.push(PairRelease { realms: numbers, mode: pair.policy.into(), certain: pair.certain });
    }
    let settings = Settings {
        settle: Duration::from_millis(file.settle_ms),
        trial: Duration::from_millis(file.trial_ms),
        rest: Duration::from_secs(file.rest_seconds),
        failures: file.failures,
        loss_percent: file.loss_percent,
        jitter: Duration::from_millis(file.jitter_ms),
        remember: Duration::from_secs(file.remember_seconds),
        cover_percent: file.cover_percent,
        ..Settings::default()
    };
    let modes = realms.iter().map(|realm| {
        let realm = realm.get_ref();
        RealmRelease { mode: realm.release.into(), lan: realm.lan_release, ice: realm.ice() }
    });
    Ok(ReleasePolicy::new(settings, modes.collect(), pairs, networks))
}

fn limits(file: &ReleaseFile) -> Result<(), (usize, String)> {
    let wrong = |what: String| Err((0, what));
    if !(500..=60_000).contains(&file.settle_ms) {
        return wrong(format!(
            "release.settle_ms is {}: write 500 to 60000; before that a stream's rate is not known",
            file.settle_ms
        ));
    }
    if !(300..=3_000).contains(&file.trial_ms) {
        return wrong(format!(
            "release.trial_ms is {}: write 300 to 3000; fewer packets prove nothing, and so long a wrong try is silent",
            file.trial_ms
        ));
    }
    if !(1..=100).contains(&file.loss_percent) {
        return wrong(format!("release.loss_percent is {}: write 1 to 100", file.loss_percent));
    }
    if file.cover_percent > 100 {
        return wrong(format!("release.cover_percent is {}: write 0 to 100", file.cover_percent));
    }
    if file.jitter_ms == 0 || file.failures == 0 {
        return wrong("release.jitter_ms and release.failures must be 1 or more".to_owned());
    }
    Ok(())
}
