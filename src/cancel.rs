//! One way to stop: SIGINT, SIGTERM or SIGHUP.
//!
//! A use case races its work against [`Cancel::requested`], drops the work when the signal wins (which ends every
//! program that it started), and then undoes what it had begun. A second signal while undoing changes nothing.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::report::Failure;

/// Tells whether a signal asked us to stop.
#[derive(Clone, Debug)]
pub struct Cancel(watch::Receiver<i32>);

impl Cancel {
    /// Listens for signals from now on. Needs a running tokio runtime.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub fn on_signals() -> io::Result<Self> {
        // Whoever started us may have held signals back for himself.
        let all = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
        all.into_iter().collect::<SigSet>().thread_unblock()?;
        let (send, receive) = watch::channel(0);
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut signals = signal(kind)?;
            let send = send.clone();
            tokio::spawn(async move {
                if signals.recv().await.is_some() {
                    send.send_if_modified(|number| {
                        let first = *number == 0;
                        if first {
                            *number = kind.as_raw_value();
                        }
                        first
                    });
                }
                // Keeps the sender: a receiver without one would wake up.
                std::future::pending::<()>().await;
            });
        }
        Ok(Self(receive))
    }

    /// Never stops anything; for what runs without a person.
    #[must_use]
    pub fn never() -> Self {
        Self(watch::channel(0).1)
    }

    /// Ends when a signal has come, with its number.
    pub async fn requested(&self) -> i32 {
        let mut receive = self.0.clone();
        match receive.wait_for(|number| *number != 0).await {
            Ok(number) => *number,
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether a signal has come.
    ///
    /// # Errors
    /// [`Failure::Interrupted`] when it has.
    pub fn check(&self) -> Result<(), Failure> {
        match *self.0.borrow() {
            0 => Ok(()),
            signal => Err(Failure::Interrupted(signal)),
        }
    }

    /// Runs `work` unless or until a signal comes.
    ///
    /// # Errors
    /// Those of `work`, or [`Failure::Interrupted`].
    pub async fn or<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            signal = self.requested() => Err(Failure::Interrupted(signal)),
            result = work => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_wins_and_stays() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cancel = Cancel::on_signals().unwrap();
            assert_eq!(cancel.or(async { Ok(1) }).await.unwrap(), 1);
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
            let stopped = cancel.or(std::future::pending::<Result<(), Failure>>()).await;
            assert!(matches!(stopped, Err(Failure::Interrupted(1))));
            assert!(matches!(cancel.or(async { Ok(()) }).await, Err(Failure::Interrupted(1))));
            assert_eq!(Cancel::never().or(async { Ok(2) }).await.unwrap(), 2);
        });
    }
}
