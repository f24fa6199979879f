//! Which phone this is (RFC 5626 §4.1): the same over restarts, or the registrar would keep what a phone that ended without a farewell
//! has left, and call it besides.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::options::Options;

/// See the module.
#[derive(Debug)]
pub(crate) struct Instance {
    id: Uuid,
    /// Locked while this phone runs: another one of the account is another instance.
    _kept: Option<File>,
}

impl Instance {
    /// As the user says, else as it was at the last start, else a new one.
    pub(crate) fn of(options: &Options) -> Self {
        if let Some(id) = options.instance {
            return Self { id, _kept: None };
        }
        folder().and_then(|folder| Self::kept(&folder, &options.register.aor())).unwrap_or_else(Self::new)
    }

    fn new() -> Self {
        Self { id: Uuid::new_v4(), _kept: None }
    }

    /// The one that is kept for an account in a folder; `None` if another phone uses it, or nothing can be kept there.
    fn kept(folder: &Path, aor: &str) -> Option<Self> {
        fs::create_dir_all(folder).ok()?;
        let path = folder.join(file_name(aor));
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path).ok()?;
        file.try_lock().ok()?;
        let mut text = String::new();
        // What is there may be anything.
        let read = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
        let id = match read {
            Some(id) => id,
            None => {
                let id = Uuid::new_v4();
                file.set_len(0).ok()?;
                std::io::Seek::rewind(&mut file).ok()?;
                writeln!(file, "{id}").ok()?;
                id
            }
        };
        Some(Self { id, _kept: Some(file) })
    }

    /// `urn:uuid:...`.
    pub(crate) fn urn(&self) -> String {
        self.id.urn().to_string()
    }
}

/// Where programs keep what is the user's and neither settings nor documents (XDG Base Directory Specification).
fn folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("crush-phone"))
}

/// An account as a file's name: what could lead elsewhere or is not plain is written in hexadecimal.
fn file_name(aor: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.@".contains(&byte);
    let written = aor.bytes().map(|byte| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("_{byte:02x}"),
    });
    format!("instance-{}", written.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_the_same_phone_at_each_start_and_two_that_run_at_once_are_two() {
        let folder = std::env::temp_dir().join(format!("crush-phone-{}", Uuid::new_v4()));
        let alice = || Instance::kept(&folder, "sip:alice@[2001:db8::1]/..");
        let first = alice().unwrap();
        assert!(alice().is_none());
        let bob = Instance::kept(&folder, "sip:bob@[2001:db8::1]").unwrap();
        assert_ne!(first.id, bob.id);
        let urn = first.urn();
        drop(first);
        assert_eq!(alice().unwrap().urn(), urn);
        // Somebody has written there.
        fs::write(folder.join(file_name("sip:alice@[2001:db8::1]/..")), [0xff; 100]).unwrap();
        let other = alice().unwrap().urn();
        assert_ne!(other, urn);
        assert_eq!(alice().unwrap().urn(), other);
        fs::remove_dir_all(folder).unwrap();
    }
}
