//! Word to systemd (`Type=notify`).

use sd_notify::NotifyState;

/// Says that the program can really serve, to systemd and in the log. Without systemd only the log hears it.
pub fn ready() {
    tell(&[NotifyState::Ready]);
    tracing::info!("ready");
}

/// Says that the program is ending.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
