//! Where two phones are, and how a run differs from the plain one.

use std::time::Duration;

use crush::agent::{Config, FlowBudget};
use media_wire::sdp::crush::{Policy, Temper};
use nat_lab::{Kind, Penalty};

use super::phone::Talk;

pub const MS: fn(u64) -> Duration = Duration::from_millis;

pub const CONE: Place = Place::Behind(Kind::Cone);
pub const COUNTING: Place = Place::Behind(Kind::SymmetricSequential);
pub const RANDOM: Place = Place::Behind(Kind::SymmetricRandom);

/// Where a phone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Public,
    Behind(Kind),
    /// Behind a router that forwards ports on request.
    Upnp,
    /// Both behind one router that does not hairpin.
    SameLan,
}

/// How a run differs from the plain one.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub places: [Place; 2],
    pub config: Config,
    /// Accounts of the phones' hosts, where they are not alone there.
    pub flows: [Option<FlowBudget>; 2],
    pub talk: [Talk; 2],
    pub video: bool,
    /// What a limiter of 30 new flows a second, in front of each NAT, does beyond that.
    pub limiter: Option<Penalty>,
    pub loss: f64,
    pub jitter: Duration,
    pub other_users: f64,
    /// One way, for each NAT.
    pub delay: Duration,
    /// B's takes so much longer.
    pub far: Duration,
    pub ipv6: bool,
    /// Phones have an address of the family that they do not speak with the relay, too, and there is a discovery service in both.
    pub dual_stack: bool,
    /// The n-th STUN message or INFO of the run is lost.
    pub lose: Option<u64>,
    pub policy: Policy,
    /// What the operator says that the network bears.
    pub operator: Option<Temper>,
    /// The relay takes so much longer.
    pub detour: Duration,
}

impl Options {
    pub fn new(seed: u64, a: Place, b: Place) -> Self {
        Self {
            seed,
            places: [a, b],
            config: Config::default(),
            flows: [None, None],
            talk: [Talk::Always; 2],
            video: false,
            limiter: None,
            loss: 0.0,
            jitter: Duration::ZERO,
            other_users: 0.0,
            delay: MS(20),
            far: Duration::ZERO,
            ipv6: false,
            dual_stack: false,
            lose: None,
            policy: Policy::Direct,
            operator: None,
            detour: Duration::ZERO,
        }
    }
}
