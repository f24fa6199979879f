//! A private PostgreSQL for a test, migrated, ended with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::PgPool;

pub(crate) struct Cluster {
    directory: PathBuf,
    pub(crate) url: String,
    _scratch: tempfile::TempDir,
}

impl Cluster {
    /// `None`, saying so, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().to_owned();
        match script("start", &directory) {
            Ok(url) => Some(Self { directory, url, _scratch: scratch }),
            Err(said) if said.contains("not installed") => {
                eprintln!("SKIPPED: {said}");
                None
            }
            Err(said) => panic!("{said}"),
        }
    }

    /// With the schema, and a pool on it.
    pub(crate) async fn migrated() -> Option<(Self, PgPool)> {
        let cluster = Self::start()?;
        let pool = cluster.pool().await;
        Some((cluster, pool))
    }

    pub(crate) fn stop(&self) {
        script("stop", &self.directory).unwrap();
    }

    pub(crate) fn start_again(&self) {
        script("start", &self.directory).unwrap();
    }

    /// Runs SQL as an operator would.
    pub(crate) fn psql(&self, text: &str) -> String {
        let output = Command::new("psql")
            .args(["-qAt", "-v", "ON_ERROR_STOP=1", &self.url, "-c", text])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A pool on the migrated database.
    pub(crate) async fn pool(&self) -> PgPool {
        let pool = sbc::store::pool(&self.url, 4).unwrap();
        sbc::store::MIGRATIONS.run(&pool).await.unwrap();
        pool
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = script("remove", &self.directory);
    }
}

fn script(action: &str, directory: &Path) -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/dev/postgres.sh");
    let output =
        Command::new(script).arg(action).arg(directory).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
