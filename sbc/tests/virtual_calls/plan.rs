//! What a seed makes of a call: who calls whom, what each phone does and when, how the media plane behaves.

use sip_engine::ua::Abilities;

use crate::description::Change;
use crate::wishes::Wish;
use play::Dice;

/// What a phone does in an answered call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// A re-INVITE, with an offer or asking for one, perhaps taken back after so many milliseconds.
    Reinvite {
        change: Option<Change>,
        cancel_after: Option<u64>,
    },
    /// UPDATE, with an offer or as a mere refresh.
    Update {
        change: Option<Change>,
    },
    Info,
    /// Blind transfer to a third phone.
    Blind,
    /// Attended transfer: calls the third phone first.
    Attended,
    Bye,
}

/// What a called phone does next, so many milliseconds after the step before.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A provisional response.
    Ring {
        status: u16,
        describes: bool,
        reliable: bool,
    },
    Accept,
    Refuse(u16),
    /// 302 to the third phone.
    Redirect,
}

/// How the first address of a trunk is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dead {
    Silent,
    Unreachable,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// As many contacts of one AOR.
    Contacts(usize),
    /// A trunk, behind a dead address or not.
    Trunk(Option<Dead>),
    /// A trunk that forks the INVITE to as many phones.
    Proxy(usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct MediaPlan {
    /// Of a hundred offers and answers, how many are refused.
    pub(crate) refused: u64,
    /// Of a hundred requests, how many are never answered.
    pub(crate) ignored: u64,
    /// The longest it thinks, in milliseconds.
    pub(crate) slowest: u64,
}

/// How one phone is.
#[derive(Debug, Clone)]
pub(crate) struct PhonePlan {
    pub(crate) abilities: Abilities,
    pub(crate) codecs: &'static [u8],
    /// Of a hundred offers in mid-call, how many it refuses.
    pub(crate) refuses: u64,
    /// How it refuses.
    pub(crate) refusal: u16,
    /// The longest it thinks, in milliseconds.
    pub(crate) slowest: u64,
    pub(crate) refuses_transfer: bool,
    /// Of a hundred INVITEs that would replace a call of its own, how many it refuses.
    pub(crate) refuses_replacement: u64,
    /// Of a hundred transfers that it has accepted, how many of the new calls it gives up at once.
    pub(crate) gives_up_transfer: u64,
    /// What it says unreliably while it rings is not what it says when it is taken up: an announcement's address, say.
    pub(crate) changes_its_mind: bool,
    /// When called, in milliseconds after the step before.
    pub(crate) steps: Vec<(u64, Step)>,
    /// In the first call, in milliseconds after its answer.
    pub(crate) acts: Vec<(u64, Act)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) is_perfect: bool,
    pub(crate) caller_in_core: bool,
    pub(crate) target: Target,
    /// The INVITE holds an offer.
    pub(crate) offer: bool,
    /// The offer travels with another body.
    pub(crate) multipart: bool,
    /// The PRACK to an answer holds a new offer.
    pub(crate) prack_offer: bool,
    /// UPDATE with an offer in the early dialog, by the caller and by the called.
    pub(crate) early_update: [bool; 2],
    pub(crate) cancel_after: Option<u64>,
    pub(crate) caller: PhonePlan,
    pub(crate) callees: Vec<PhonePlan>,
    pub(crate) third: PhonePlan,
    pub(crate) media: MediaPlan,
    /// What the media plane wishes for in every answered call.
    pub(crate) wishes: Vec<Wish>,
}

/// All phones have one of these in common with all others, but for the last list.
const CODECS: [&[u8]; 6] = [&[0], &[8, 0], &[0, 8], &[9, 0], &[0, 18, 3], &[8, 9, 0]];
const STRANGE: &[u8] = &[18];

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::of(seed, 0);
        let caller_in_core = dice.chance(30);
        let target = if !caller_in_core && dice.chance(40) {
            Target::Trunk(if dice.chance(30) {
                Some(dice.pick(&[Dead::Silent, Dead::Unreachable]))
            } else {
                None
            })
        } else {
            Target::Contacts(dice.pick(&[1, 1, 1, 2, 2, 3]))
        };
        let target = match target {
            Target::Trunk(None) if dice.chance(40) => Target::Proxy(dice.pick(&[2, 2, 3])),
            other => other,
        };
        let phones = match target {
            Target::Contacts(count) | Target::Proxy(count) => count,
            Target::Trunk(_) => 1,
        };
        let media = match dice.below(10) {
            0 => MediaPlan { refused: 25, ignored: 0, slowest: 60 },
            1 => MediaPlan { refused: 0, ignored: 5, slowest: 60 },
            2 | 3 => MediaPlan { refused: 0, ignored: 0, slowest: 1500 },
            _ => MediaPlan { refused: 0, ignored: 0, slowest: 30 },
        };
        let mut caller = phone(&mut dice);
        let mut callees: Vec<PhonePlan> = (0..phones).map(|_| phone(&mut dice)).collect();
        let third = phone(&mut dice);
        for callee in &mut callees {
            callee.acts = acts(&mut dice);
        }
        caller.acts = acts(&mut dice);
        if dice.chance(25) {
            // Glare.
            let (at, apart) = (dice.below(3000), dice.below(150));
            let mut act = || Act::Reinvite { change: change(&mut dice), cancel_after: None };
            caller.acts.push((at, act()));
            callees[0].acts.push((at + apart, act()));
        }
        let bye = dice.below(6000);
        match dice.below(10) {
            0..=2 => caller.acts.push((bye, Act::Bye)),
            3..=5 => callees[0].acts.push((bye, Act::Bye)),
            6 => {
                caller.acts.push((bye, Act::Bye));
                callees[0].acts.push((bye, Act::Bye));
            }
            _ => {}
        }
        let mut plan = Self {
            is_perfect: false,
            caller_in_core,
            target,
            offer: dice.chance(80),
            multipart: dice.chance(10),
            prack_offer: dice.chance(30),
            early_update: [dice.chance(20), dice.chance(20)],
            cancel_after: if dice.chance(25) { Some(dice.below(3500)) } else { None },
            caller,
            callees,
            third,
            media,
            wishes: wishes(&mut dice),
        };
        if dice.chance(60) {
            let theme = dice.pick(&[
                Theme::Forks,
                Theme::Forks,
                Theme::EarlyOffers,
                Theme::EarlyOffers,
                Theme::ChangedMind,
                Theme::LateOffer,
                Theme::Updates,
                Theme::Transfers,
                Theme::Transfers,
            ]);
            plan.lean_to(theme, &mut dice);
        }
        plan
    }

    /// Makes something likely that chance alone makes seldom, in one of the ways it may come out.
    fn lean_to(&mut self, theme: Theme, dice: &mut Dice) {
        let rings = |describes, reliable| Step::Ring { status: 183, describes, reliable };
        match theme {
            Theme::Forks => {
                self.caller_in_core = false;
                self.target = Target::Proxy(dice.pick(&[2, 2, 3]));
                self.caller.codecs = &[8, 9, 0];
                let Target::Proxy(count) = self.target else { return };
                self.callees = (0..count).map(|_| phone(dice)).collect();
                for (callee, codecs) in self.callees.iter_mut().zip([&[0][..], &[8, 0], &[9, 0]]) {
                    callee.codecs = codecs;
                    callee.steps.insert(0, (dice.below(300), rings(dice.chance(80), dice.chance(50))));
                }
                self.callees[0].acts = acts(dice);
            }
            Theme::EarlyOffers => {
                self.offer = true;
                self.prack_offer = dice.chance(50);
                self.early_update = [dice.chance(60), dice.chance(40)];
                for phone in self.callees.iter_mut().chain([&mut self.caller]) {
                    phone.abilities.update = true;
                    phone.abilities.reliable = true;
                    let last = (1000 + dice.below(2500), dice.pick(&[Step::Accept, Step::Refuse(486)]));
                    phone.steps = vec![(dice.below(300), rings(true, true)), last];
                }
            }
            Theme::ChangedMind => {
                self.offer = true;
                for phone in &mut self.callees {
                    phone.changes_its_mind = true;
                    let last = (dice.below(1500), Step::Accept);
                    phone.steps = vec![(dice.below(300), rings(true, false)), last];
                }
            }
            Theme::LateOffer => self.offer = false,
            Theme::Updates => {
                for phone in self.callees.iter_mut().chain([&mut self.caller]) {
                    phone.abilities.update = true;
                    let act = Act::Update { change: change(dice) };
                    phone.acts.push((dice.below(2500), act));
                }
            }
            Theme::Transfers => {
                self.callees[0].steps = vec![(dice.below(500), Step::Accept)];
                self.callees[0].refuses_transfer = false;
                self.callees[0].gives_up_transfer = dice.pick(&[0, 90, 90]);
                self.caller.acts.push((dice.below(1000), Act::Attended));
            }
        }
        match dice.below(4) {
            0 => self.media = MediaPlan { refused: 35, ignored: 0, slowest: 60 },
            1 | 2 => {
                self.media = MediaPlan { refused: 0, ignored: 0, slowest: 1500 };
                let by_caller = dice.chance(50);
                let bye = (dice.below(3000), Act::Bye);
                match theme {
                    Theme::Updates if by_caller => self.caller.acts.push(bye),
                    Theme::Updates => self.callees[0].acts.push(bye),
                    Theme::Transfers => {}
                    _ => self.cancel_after = Some(dice.below(3500)),
                }
            }
            _ => self.cancel_after = None,
        }
    }
}

/// What a plan may lean to.
#[derive(Debug, Clone, Copy)]
enum Theme {
    Forks,
    EarlyOffers,
    ChangedMind,
    LateOffer,
    Updates,
    Transfers,
}

fn phone(dice: &mut Dice) -> PhonePlan {
    PhonePlan {
        abilities: Abilities {
            update: dice.chance(75),
            reliable: dice.chance(60),
            retries_glare: dice.chance(50),
        },
        codecs: if dice.chance(3) { STRANGE } else { dice.pick(&CODECS) },
        refuses: dice.pick(&[0, 0, 0, 30]),
        refusal: dice.pick(&[488, 488, 491, 500, 501]),
        slowest: dice.pick(&[5, 300, 1500]),
        refuses_transfer: dice.chance(20),
        refuses_replacement: dice.pick(&[0, 0, 50]),
        gives_up_transfer: dice.pick(&[0, 0, 50]),
        changes_its_mind: dice.chance(30),
        steps: steps(dice),
        acts: Vec::new(),
    }
}

fn steps(dice: &mut Dice) -> Vec<(u64, Step)> {
    let mut steps = Vec::new();
    for chance in [70, 35, 20] {
        if dice.chance(chance) {
            let ring = Step::Ring {
                status: dice.pick(&[180, 180, 183]),
                describes: dice.chance(40),
                reliable: dice.chance(50),
            };
            steps.push((dice.below(700), ring));
        }
    }
    let last = dice.below(1500);
    match dice.below(100) {
        0..65 => steps.push((last, Step::Accept)),
        65..90 => steps.push((last, Step::Refuse(dice.pick(&[486, 603, 404, 480, 500, 503, 488, 600])))),
        90..93 => steps.push((last, Step::Redirect)),
        _ => {}
    }
    steps
}

fn wishes(dice: &mut Dice) -> Vec<Wish> {
    let count = dice.pick(&[0, 0, 1, 2, 4]);
    (0..count)
        .map(|_| Wish {
            after: dice.below(4000),
            legs: dice.pick(&[[true, false], [false, true], [true, true]]),
            is_bare: dice.chance(30),
            is_silenced: dice.chance(10),
            deadline: dice.pick(&[500, 1000, 5000]),
        })
        .collect()
}

fn change(dice: &mut Dice) -> Option<Change> {
    let changes = [
        Change::Same,
        Change::Hold,
        Change::Hold,
        Change::Resume,
        Change::Codecs,
        Change::FaxInPlace,
        Change::FaxBeside,
        Change::Sound,
        Change::Video,
    ];
    if dice.chance(25) { None } else { Some(dice.pick(&changes)) }
}

fn acts(dice: &mut Dice) -> Vec<(u64, Act)> {
    let count = dice.pick(&[0, 0, 1, 2, 3]);
    (0..count)
        .map(|_| {
            let act = match dice.below(16) {
                0..=4 => Act::Reinvite { change: change(dice), cancel_after: None },
                5..=7 => Act::Reinvite { change: change(dice), cancel_after: Some(dice.below(500)) },
                8..=10 => Act::Update { change: change(dice) },
                11 | 12 => Act::Info,
                13 | 14 => Act::Blind,
                _ => Act::Attended,
            };
            (dice.below(4000), act)
        })
        .collect()
}
