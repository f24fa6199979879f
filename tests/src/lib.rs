//! The laboratory: two networks in namespaces, real peers in them, and what passes between them.
//!
//! Nothing here leaves the namespaces a [`Lab`] makes, and everything a lab started ends when it is dropped.

pub mod agent;
pub mod baresip;
pub mod capture;
pub mod console;
pub mod crossing;
pub mod crowd;
pub mod ears;
pub mod hearing;
pub mod home;
pub mod kamailio;
pub mod leak;
pub mod linphone;
pub mod long;
pub mod network;
pub mod packet;
pub mod phone;
pub mod picture;
pub mod pjsua;
pub mod place;
pub mod process;
pub mod sbc;
pub mod sipp;
pub mod socket;
pub mod softphone;
pub mod stage;
pub mod talk;
pub mod tone;
mod upnp;
pub mod voice;

pub use network::{Lab, Network};
pub use process::Process;

/// Why the laboratory could not do something: text for the person who reads the test's output.
#[derive(Debug, Clone)]
pub struct Failure(pub String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure(error.to_string())
    }
}

/// What every operation of the laboratory returns.
pub type Result<T> = std::result::Result<T, Failure>;

/// Ends a test that cannot run here, saying why: `skip_unless_possible!("baresip", "linphonec")`.
#[macro_export]
macro_rules! skip_unless_possible {
    ($($program:expr),* $(,)?) => {
        if let Some(reason) = $crate::Lab::impossible(&[$($program),*]) {
            eprintln!("SKIPPED: {reason}");
            return;
        }
    };
}
