//! What is known of the rclone behind one mount. Pure.

use mainstay_common::{
    metric::{Readings, catalogue as m},
    state::{RcState, RemoteState},
};
use tokio::time::Instant;

use super::{
    answers::{About, without_secrets},
    client::CallError,
};

/// What is known; what is not told now is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::collect) struct Known {
    /// `None` before its first answer or failure.
    pub(in crate::collect) rc_state: Option<RcState>,
    /// Its version; empty where it did not tell.
    pub(in crate::collect) version: String,
    /// How the remote answered last, and when; `None` before the first time.
    pub(in crate::collect) remote: Option<(RemoteState, Instant)>,
    /// The remote by the name that `operations/about` wants.
    pub(super) fs: Option<String>,
    /// Uploads, cache and errors.
    pub(super) control: Readings,
    pub(super) about: About,
    /// What rclone complained of last, or why its remote control does not serve.
    pub(super) complaint: String,
    /// What went wrong with the remote.
    pub(super) remote_complaint: String,
}

impl Known {
    /// Nothing can be asked, and why.
    pub(super) fn unreachable(rc_state: RcState, why: &str) -> Self {
        Self {
            rc_state: Some(rc_state),
            remote: Some((RemoteState::Unknown, Instant::now())),
            complaint: why.to_owned(),
            ..Self::default()
        }
    }

    /// The remote control failed: what it told before is not known any longer.
    pub(super) fn lose(&mut self, error: &CallError) {
        let rc_state = match error {
            CallError::Denied | CallError::Forbidden => RcState::Denied,
            CallError::Unreachable(_)
            | CallError::Late(_)
            | CallError::NotKnown
            | CallError::Failed(_)
            | CallError::Garbled(_) => RcState::Unreachable,
        };
        *self = Self::unreachable(rc_state, &without_secrets(&error.to_string()));
    }

    /// Takes over what came of a question to the remote itself.
    pub(super) fn learn_of_remote(&mut self, about: Result<About, CallError>, now: Instant) {
        let (state, complaint) = match &about {
            Ok(_) => (RemoteState::Ok, String::new()),
            // Many backends have no quota to tell.
            Err(error) if error.is_for_want_of_quota() => (RemoteState::Unknown, String::new()),
            Err(error @ (CallError::Failed(_) | CallError::Late(_))) => {
                (RemoteState::Error, without_secrets(&format!("operations/about: {error}")))
            }
            Err(error) => (RemoteState::Unknown, without_secrets(&format!("operations/about: {error}"))),
        };
        (self.remote, self.remote_complaint) = (Some((state, now)), complaint);
        self.about = about.unwrap_or_default();
    }

    /// All readings.
    pub(in crate::collect) fn readings(&self) -> Readings {
        let mut all = self.control.clone();
        all.set_count(&m::RCLONE_REMOTE_TOTAL_BYTES, self.about.total);
        all.set_count(&m::RCLONE_REMOTE_USED_BYTES, self.about.used);
        all.set_count(&m::RCLONE_REMOTE_FREE_BYTES, self.about.free);
        all
    }

    /// What went wrong last; empty where nothing did. A remote that does not answer goes before.
    pub(in crate::collect) fn last_error(&self) -> &str {
        if self.remote_complaint.is_empty() { &self.complaint } else { &self.remote_complaint }
    }

    /// True where this says something else of states than `before` did.
    pub(super) fn is_news(&self, before: &Self) -> bool {
        let states = |known: &Self| (known.rc_state, known.remote.map(|(state, _)| state));
        states(self) != states(before)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_remote_control_that_fails_takes_its_readings_along() {
        let mut known = Known { version: "v1.60.1".into(), ..Known::default() };
        known.control.set_count(&m::RCLONE_UPLOADS_QUEUED, 3);
        known.lose(&CallError::Late(Duration::from_secs(3)));
        assert_eq!(known.rc_state, Some(RcState::Unreachable));
        assert_eq!((known.readings(), known.last_error()), (Readings::new(), "no answer within 3s"));
        known.lose(&CallError::Denied);
        assert_eq!(known.rc_state, Some(RcState::Denied));
    }

    #[test]
    fn a_remote_without_quota_is_unknown_and_one_that_fails_an_error() {
        let mut known = Known::default();
        let mut state = |about| {
            known.learn_of_remote(about, Instant::now());
            (
                known.remote.unwrap().0,
                known.last_error().to_owned(),
                known.readings().count(&m::RCLONE_REMOTE_USED_BYTES),
            )
        };
        let told = About { used: Some(5), ..About::default() };
        assert_eq!(state(Ok(told)), (RemoteState::Ok, String::new(), Some(5)));
        let without = CallError::Failed("http root '' doesn't support about".into());
        assert_eq!(state(Err(without)), (RemoteState::Unknown, String::new(), None));
        let late = CallError::Late(Duration::from_secs(10));
        let why = "operations/about: no answer within 10s".to_owned();
        assert_eq!(state(Err(late)), (RemoteState::Error, why, None));
        assert_eq!(state(Err(CallError::Forbidden)).0, RemoteState::Unknown, "nobody asked the remote");
    }
}
