//! A part that is a task.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::part::{Body, How, Turn, locked};

/// A task whose end is looked at, whoever drops its handle.
pub struct Task<F> {
    future: Pin<Box<F>>,
    body: Arc<Body>,
}

impl<F> Task<F> {
    pub(crate) fn new(future: F, body: Arc<Body>) -> Self {
        Self { future: Box::pin(future), body }
    }
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        {
            let mut waker = locked(&this.body.waker);
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
        }
        let turn = Turn::begin(this.body.clone());
        // Nothing that the part held is looked at afterwards: the process ends, or the panic goes on.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(debug_assertions)]
            if this.body.fault.strikes() {
                return Poll::Ready(());
            }
            this.future.as_mut().poll(context)
        }));
        drop(turn);
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => {
                this.body.ended(How::Returned);
                Poll::Ready(())
            }
            Err(panic) => {
                this.body.ended(How::Panicked);
                resume_unwind(panic)
            }
        }
    }
}

impl<F> Drop for Task<F> {
    fn drop(&mut self) {
        // Aborted, or its runtime is gone.
        self.body.ended(How::Returned);
    }
}

/// What belongs to a part, which may end.
pub struct Belonging<F> {
    future: Pin<Box<F>>,
    body: Option<Arc<Body>>,
}

impl<F> Belonging<F> {
    pub(crate) fn new(future: F, body: Option<Arc<Body>>) -> Self {
        Self { future: Box::pin(future), body }
    }
}

impl<F: Future<Output = ()>> Future for Belonging<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let turn = this.body.clone().map(Turn::begin);
        // As of a task.
        let polled = catch_unwind(AssertUnwindSafe(|| this.future.as_mut().poll(context)));
        drop(turn);
        polled.unwrap_or_else(|panic| {
            if let Some(body) = &this.body {
                body.ended(How::Panicked);
            }
            resume_unwind(panic)
        })
    }
}
