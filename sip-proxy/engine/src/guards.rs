//! What keeps one from having what is others': who may ask how much, and what is withheld from whom.

use crate::io::Load;
use crate::proven::Proven;
use crate::spirals::Spirals;
use crate::strangers::Strangers;
use crate::withheld::Withheld;

/// See the module.
#[derive(Debug)]
pub(crate) struct Guards {
    pub(crate) load: Load,
    /// No new calls.
    pub(crate) draining: bool,
    pub(crate) strangers: Strangers,
    pub(crate) spirals: Spirals,
    pub(crate) withheld: Withheld,
    pub(crate) proven: Proven,
}
