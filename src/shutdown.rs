//! Stopping on SIGTERM and SIGINT: the first signal asks, the second insists.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A token that is cancelled at the first SIGTERM or SIGINT. At the second, the process exits at once with the status
/// that shells give to a process killed by it: 130 for SIGINT, 143 for SIGTERM.
///
/// Needs a tokio runtime around it.
///
/// # Errors
///
/// When the system refuses a signal handler.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut signals = Signals::new()?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let first = signals.next().await;
        info!(signal = first.name(), "stopping; a second signal stops at once");
        stop.cancel();
        let second = signals.next().await;
        warn!(signal = second.name(), status = second.exit_status(), "stopped by a second signal");
        std::process::exit(second.exit_status());
    });
    Ok(token)
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> StopSignal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => StopSignal::Interrupt,
            Some(()) = self.terminate.recv() => StopSignal::Terminate,
            // No runtime, no signals: nothing is left that could be told.
            else => std::future::pending().await,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum StopSignal {
    Interrupt,
    Terminate,
}

impl StopSignal {
    const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    const fn exit_status(self) -> i32 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}
