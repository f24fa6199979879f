//! Work that blocks, for tasks that must not.

use std::panic::resume_unwind;

/// Runs it on a thread of its own and waits for it. Its panic is the panic of the task that waits: nobody goes on as if it
/// were an error of a disk, which is tried again for ever.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime has ended, and with it whoever waits.
        Err(Err(_)) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_blocks_gives_its_result_or_panics_where_it_is_awaited() {
        assert_eq!(blocking(|| 7).await, 7);
        let panicked = tokio::spawn(blocking(|| Vec::<u8>::new().remove(0))).await;
        assert!(panicked.unwrap_err().is_panic());
    }
}
