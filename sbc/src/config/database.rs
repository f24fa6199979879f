//! What of the configuration the commands need that do nothing but ask the database.

use std::path::Path;

use serde::Deserialize;

use super::{ConfigError, Database, fault};

/// The file for who asks the database only. **Such a command reads nothing else**: whoever may see records need not be able to read
/// keys, and a mistake elsewhere in the file does not keep them from him.
#[derive(Debug, Deserialize)]
struct OnlyDatabase {
    database: Database,
}

impl Database {
    /// The `[database]` of a file, whatever else is in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let file: OnlyDatabase = toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            fault(path, &text, at, error.message().replace('\n', " "))
        })?;
        Ok(file.database)
    }

    /// Its URL, wherever it comes from.
    pub fn url(&self) -> Result<String, String> {
        url(&self.url).map_err(|error| format!("database.url: {error}"))
    }
}

/// The file for who only wants to know its realms.
#[derive(Debug, Deserialize)]
struct OnlyRealms {
    #[serde(default)]
    realm: Vec<OnlyName>,
}

#[derive(Debug, Deserialize)]
struct OnlyName {
    name: String,
}

/// The names of the realms of a file, whatever else is in it.
pub fn realm_names(path: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file: OnlyRealms = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(file.realm.into_iter().map(|realm| realm.name).collect())
}

/// A URL as it is written, of the environment (`$NAME`) or of a file (`@/path`).
pub fn url(written: &str) -> Result<String, String> {
    if let Some(name) = written.strip_prefix('$') {
        return std::env::var(name).map_err(|_| format!("the environment has no {name}; set it"));
    }
    if let Some(path) = written.strip_prefix('@') {
        return std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .map_err(|error| format!("{path}: {error}"));
    }
    Ok(written.to_owned())
}
