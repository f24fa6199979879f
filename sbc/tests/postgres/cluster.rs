//! A private PostgreSQL for a test, migrated, ended with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::PgPool;

pub(crate) struct Cluster {
    directory: PathBuf,
    socket: String,
    _scratch: tempfile::TempDir,
}

impl Cluster {
    /// `None`, saying so, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().to_owned();
        match script("start", &directory) {
            Ok(url) => {
                let socket = url.split_once("host=").unwrap().1.to_owned();
                Some(Self { directory, socket, _scratch: scratch })
            }
            Err(said) if said.contains("not installed") => {
                eprintln!("SKIPPED: {said}");
                None
            }
            Err(said) => panic!("{said}"),
        }
    }

    /// With the schema, and a pool on it as the SBC has one.
    pub(crate) async fn migrated() -> Option<(Self, PgPool)> {
        let cluster = Self::start()?;
        cluster.migrate().await;
        let pool = cluster.pool("sbc_runtime");
        Some((cluster, pool))
    }

    pub(crate) async fn migrate(&self) {
        sbc::store::MIGRATIONS.run(&self.pool("sbc_owner")).await.unwrap();
    }

    /// The connection of a role: `sbc_runtime`, `sbc_operator`, `sbc_reader`, `sbc_owner`, or `sbc`, the administrator.
    pub(crate) fn url(&self, user: &str) -> String {
        format!("postgres://{user}@localhost/sbc?host={}", self.socket)
    }

    pub(crate) fn pool(&self, user: &str) -> PgPool {
        sbc::store::pool(&self.url(user), 4).unwrap()
    }

    pub(crate) fn stop(&self) {
        script("stop", &self.directory).unwrap();
    }

    pub(crate) fn start_again(&self) {
        script("start", &self.directory).unwrap();
    }

    /// Runs SQL as an operator would.
    pub(crate) fn psql(&self, text: &str) -> String {
        self.psql_as("sbc_operator", text)
    }

    pub(crate) fn psql_as(&self, user: &str, text: &str) -> String {
        self.asked(user, text).unwrap_or_else(|said| panic!("{said}"))
    }

    /// What the rows or the error are.
    pub(crate) fn asked(&self, user: &str, text: &str) -> Result<String, String> {
        said(Command::new("psql").args(["-qAt", "-v", "ON_ERROR_STOP=1", &self.url(user), "-c", text]))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = script("remove", &self.directory);
    }
}

fn script(action: &str, directory: &Path) -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/dev/postgres.sh");
    said(Command::new(script).arg(action).arg(directory))
}

fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
