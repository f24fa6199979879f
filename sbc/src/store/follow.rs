//! One way to follow a table: listen, look, look again after each notification, and tell of trouble and of its end.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};

use super::bounded;
use super::trouble::{Trouble, diagnose};

/// After so long without a word the connection that listens is tried: a server that vanished says nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a connection that was lost is left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// What became of waiting for a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// Look again.
    Notified,
    /// The connection is gone: listen anew.
    Lost,
}

/// A table whose changes triggers tell.
pub trait Table {
    /// The channel of its triggers.
    const CHANNEL: &'static str;
    /// What it holds, for complaints: "WHAT can't be read".
    const WHAT: &'static str;
    /// The line that says that it is read again.
    const OVER: &'static str;

    /// Reads it, and does what it says.
    fn look(&mut self, pool: &PgPool) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// What it means that it can't be read.
    fn harm(&self) -> &'static str {
        "what was read before stays in force"
    }

    /// Waits until there is something to look at.
    fn wait(
        &mut self,
        listener: &mut PgListener,
    ) -> impl Future<Output = Result<Waited, sqlx::Error>> + Send {
        notified(listener)
    }
}

/// Does so for ever.
pub async fn follow<T: Table + Send>(pool: PgPool, mut table: T) {
    let mut trouble = Trouble::new(T::OVER);
    loop {
        vitals::round();
        if let Err(error) = follow_once(&pool, &mut table, &mut trouble).await
            && trouble.must_tell()
        {
            let found = diagnose(&pool, &error).await;
            tracing::error!(error = found.why, "{} can't be read; {}: {}", T::WHAT, table.harm(), found.cure);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_once<T: Table>(
    pool: &PgPool,
    table: &mut T,
    trouble: &mut Trouble,
) -> Result<(), sqlx::Error> {
    // Listening comes before reading, so that a change that falls between is told at once.
    let mut listener = bounded(PgListener::connect_with(pool)).await?;
    bounded(listener.listen(T::CHANNEL)).await?;
    loop {
        vitals::round();
        table.look(pool).await?;
        trouble.end();
        if table.wait(&mut listener).await? == Waited::Lost {
            return Ok(());
        }
    }
}

/// Waits for a notification; those that came with it are told by it. May be given up at any time.
pub async fn notified(listener: &mut PgListener) -> Result<Waited, sqlx::Error> {
    loop {
        vitals::round();
        if let Ok(received) = tokio::time::timeout(SILENCE, listener.try_recv()).await {
            if received?.is_none() {
                return Ok(Waited::Lost);
            }
            while listener.next_buffered().is_some() {}
            return Ok(Waited::Notified);
        }
        let alive = sqlx::query!("SELECT 1 AS one").fetch_one(&mut *listener);
        match tokio::time::timeout(Duration::from_secs(5), alive).await {
            Ok(answer) => {
                answer?;
            }
            Err(_) => return Ok(Waited::Lost),
        }
    }
}
