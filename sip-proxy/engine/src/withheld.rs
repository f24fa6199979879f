//! Headers of realms that are not trusted, which do not pass: counted, and each told of once, so that an operator whose
//! phones need one learns its name.

use ahash::AHashSet;

use crate::config::Realm;
use crate::flow::RealmId;
use crate::io::{Notice, Output};

/// Names that are told of; a stranger can write any number of them.
const TOLD: usize = 256;
/// Octets of a name that are told.
const SHOWN: usize = 64;

#[derive(Debug)]
pub(crate) struct Withheld {
    told: AHashSet<(RealmId, Box<[u8]>)>,
}

impl Withheld {
    pub(crate) fn new() -> Self {
        Self { told: AHashSet::new() }
    }

    /// What to count and say of one that does not pass.
    pub(crate) fn note(&mut self, realm: &Realm, header: &[u8]) -> impl Iterator<Item = Output> + use<> {
        let name = header.get(..SHOWN).unwrap_or(header).to_ascii_lowercase();
        let key = (realm.id, Box::<[u8]>::from(name));
        let is_new = self.told.len() < TOLD && !self.told.contains(&key);
        let notice = is_new.then(|| {
            let shown = String::from_utf8_lossy(&key.1).into_owned();
            self.told.insert(key);
            Output::Notice(Notice {
                kind: "header_withheld",
                remote: None,
                detail: format!(
                    "realm {}: `{shown}` does not pass, for its realm is not trusted; pass_headers of the realm names what passes beside the usual",
                    realm.name
                ),
            })
        });
        std::iter::once(Output::Withheld).chain(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_counted_each_time_and_told_of_once_and_no_flood_of_names_is() {
        let realm = crate::config::tests::realm("example.net");
        let mut withheld = Withheld::new();
        let mut said = |name: String| withheld.note(&realm, name.as_bytes()).count();
        assert_eq!((said("P-One".to_owned()), said("p-one".to_owned())), (2, 1));
        let told = (0..1000).map(|number| said(format!("N{number}"))).filter(|outputs| *outputs == 2).count();
        assert_eq!(told, TOLD - 1);
    }
}
