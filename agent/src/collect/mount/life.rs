//! A mount's life: what happens to it becomes its state. Pure; time comes in from outside.

use std::time::Duration;

use mainstay_common::{Timestamp, state::MountState};
use tokio::time::Instant;

use super::verdict::{Size, Sizes, Verdict};
use crate::probe::PATIENCE;

/// After so long without a hang, the next one counts as the first.
const CALM: Duration = Duration::from_secs(300);
/// The shortest and the longest wait before a mount that hangs again and again is asked anew.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Sizes that are this much older than the time between questions are told with their age.
const SLACK: Duration = Duration::from_secs(2);
/// The words for why, where more than one event leads to them.
const STOPPED: &str = "process_stopped";
const NOT_MOUNTED: &str = "not_mounted";

/// A moment, by both clocks: the wall's is shown, the steady one measures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: Timestamp,
    pub(super) steady: Instant,
}

/// What happens to a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A child was given the question.
    Asked,
    /// What became of it.
    Came(Fate),
    /// It answered after all, or its child ended; `failed`: with an error, which a mount that lives again would not give.
    AnsweredLate { failed: bool },
    /// The process that serves it is stopped.
    Stopped,
    /// The process that serves it runs.
    Runs,
    /// The process that served it ended.
    OwnerEnded,
    /// Requests of others wait for it, or time out: a sign, no proof.
    OthersWait,
    /// Requests of others that waited are answered: a sign, no proof.
    OthersGoOn,
    /// It is mounted no longer.
    Left,
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was answered in time.
    Answered(Verdict),
    /// It was not; it was asked then.
    Silent(Timestamp),
    /// Another one is still outstanding, of an earlier life of the agent or of this mount, since then.
    StillAsked(Timestamp),
    /// Another mount answered, which took the place of this one.
    OtherAnswered,
    /// Too many others hang.
    TooManyHang,
    /// No child could ask.
    NotAsked(String),
}

/// Whether a child is with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// None, and when the next one is due; `None`: never.
    Idle(Option<Instant>),
    /// One, since then.
    Asked(Instant),
    /// One that does not come back.
    Silent,
}

/// What is known of a mount, and what follows from it.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// Time between two questions.
    every: Duration,
    state: MountState,
    reason: String,
    since: Timestamp,
    /// The last sizes, and when they were read.
    sizes: Option<(Sizes, Timestamp)>,
    /// The last answer had sizes.
    sized: bool,
    latency: Option<Duration>,
    question: Question,
    stopped: bool,
    /// Hangs without calm between them.
    hangs: u32,
    /// Since when it has answered in time.
    calm_since: Option<Instant>,
    /// Questions in a row that no child could ask.
    not_asked: u32,
}

impl Life {
    /// A mount that is to be asked at once.
    pub(super) fn new(every: Duration, now: Now) -> Self {
        Self {
            every,
            state: MountState::Unknown,
            reason: String::new(),
            since: now.wall,
            sizes: None,
            sized: false,
            latency: None,
            question: Question::Idle(Some(now.steady)),
            stopped: false,
            hangs: 0,
            calm_since: None,
            not_asked: 0,
        }
    }

    /// A mount that is never asked, and why.
    pub(super) fn unasked(reason: &str, now: Now) -> Self {
        Self { reason: reason.to_owned(), question: Question::Idle(None), ..Self::new(Duration::ZERO, now) }
    }

    /// A mount that should be there and is not, since then.
    pub(super) fn missing(since: Timestamp, now: Now) -> Self {
        let mut life = Self::unasked("", now);
        life.enter(MountState::Gone, NOT_MOUNTED, since);
        life
    }

    /// Takes over what happened. What becomes of a question counts only where this life asked it.
    pub(super) fn on(&mut self, event: Event, now: Now) {
        match event {
            Event::Asked => self.question = Question::Asked(now.steady),
            Event::Came(fate) => {
                if let Question::Asked(at) = self.question {
                    self.came(fate, at, now);
                }
            }
            Event::AnsweredLate { failed } => {
                if self.question == Question::Silent {
                    let wait = if failed { Duration::ZERO } else { back_off(self.hangs) };
                    self.question = Question::Idle(Some(now.steady + wait));
                }
            }
            Event::Stopped => {
                if !std::mem::replace(&mut self.stopped, true) && self.state != MountState::Hung {
                    self.enter(MountState::Hung, STOPPED, now.wall);
                }
            }
            Event::Runs => {
                if std::mem::replace(&mut self.stopped, false) {
                    self.hasten(now);
                }
            }
            Event::OwnerEnded => {
                self.stopped = false;
                self.hasten(now);
            }
            Event::OthersWait => {
                if self.is_good() {
                    self.hasten(now);
                }
            }
            Event::OthersGoOn => {
                if self.state == MountState::Hung {
                    self.hasten(now);
                }
            }
            Event::Left => {
                (self.question, self.stopped) = (Question::Idle(None), false);
                self.enter(MountState::Gone, NOT_MOUNTED, now.wall);
            }
        }
    }

    /// What became of a question that was asked `at`.
    fn came(&mut self, fate: Fate, at: Instant, now: Now) {
        self.question = Question::Idle(Some(now.steady + self.every));
        match fate {
            Fate::Answered(verdict) => self.answered(verdict, at, now),
            Fate::Silent(since) => self.silent(since, now),
            Fate::StillAsked(since) => {
                let age = now.wall.since(since);
                if age >= PATIENCE {
                    self.enter(MountState::Hung, self.silence(), since);
                } else {
                    self.question = Question::Idle(Some(now.steady + (PATIENCE - age)));
                    if self.state == MountState::Unknown {
                        self.enter(MountState::Unknown, "still_asked", now.wall);
                    }
                }
            }
            Fate::TooManyHang => self.lose_sight("probe_limit", now),
            // The list of mounts will tell what stands there; until it does, this is no answer of ours.
            Fate::OtherAnswered => self.not_asked("another mount answers in its place", now),
            Fate::NotAsked(why) => {
                self.not_asked(&why, now);
                // A child may end for reasons of its own.
                if self.not_asked == 1 {
                    self.hasten(now);
                }
            }
        }
    }

    fn answered(&mut self, verdict: Verdict, asked: Instant, now: Now) {
        self.question = Question::Idle(Some(asked + self.every));
        self.not_asked = 0;
        self.calm_since.get_or_insert(now.steady);
        self.latency = Some(verdict.took);
        self.sized = matches!(verdict.sizes, Size::Known(_));
        if let Size::Known(sizes) = verdict.sizes {
            self.sizes = Some((sizes, now.wall));
        }
        // Whoever stopped since has not answered for it.
        if !self.stopped {
            self.enter(verdict.state, &verdict.reason, now.wall);
        }
    }

    fn silent(&mut self, since: Timestamp, now: Now) {
        if self.calm_since.take().is_some_and(|since| now.steady - since >= CALM) {
            self.hangs = 0;
        }
        self.hangs += 1;
        self.question = Question::Silent;
        self.enter(MountState::Hung, self.silence(), since);
    }

    fn silence(&self) -> &'static str {
        if self.stopped { STOPPED } else { "no_answer" }
    }

    /// Twice in a row is no accident.
    fn not_asked(&mut self, why: &str, now: Now) {
        self.not_asked += 1;
        if self.not_asked >= 2 {
            self.lose_sight(why, now);
        }
    }

    /// The next question as soon as there can be one.
    fn hasten(&mut self, now: Now) {
        if let Question::Idle(Some(_)) = self.question {
            self.question = Question::Idle(Some(now.steady));
        }
    }

    /// A mount that hung is still known to; of any other nothing is known any longer.
    fn lose_sight(&mut self, reason: &str, now: Now) {
        if self.state != MountState::Hung {
            self.enter(MountState::Unknown, reason, now.wall);
        }
    }

    fn enter(&mut self, state: MountState, reason: &str, since: Timestamp) {
        if self.state != state {
            (self.state, self.since) = (state, since);
        }
        reason.clone_into(&mut self.reason);
    }

    /// When the next question is due, if any is.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.question {
            Question::Idle(due) if !self.stopped => due,
            Question::Idle(_) | Question::Asked(_) | Question::Silent => None,
        }
    }

    pub(super) fn state(&self) -> MountState {
        self.state
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    /// How long the last answer took; unknown while there is none.
    pub(super) fn latency(&self) -> Option<Duration> {
        self.latency.filter(|_| self.is_good())
    }

    /// The last sizes. With a moment where they are older than the rest of the row.
    pub(super) fn sizes(&self, now: Timestamp) -> Option<(Sizes, Option<Timestamp>)> {
        let (sizes, read_at) = self.sizes?;
        let fresh = self.is_good() && self.sized && now.since(read_at) <= self.every + PATIENCE + SLACK;
        Some((sizes, (!fresh).then_some(read_at)))
    }

    fn is_good(&self) -> bool {
        matches!(self.state, MountState::Ok | MountState::Slow)
    }
}

/// None after the first hang; then 5 s, doubled up to a minute.
fn back_off(hangs: u32) -> Duration {
    match hangs.checked_sub(2) {
        None => Duration::ZERO,
        Some(again) => BACK_OFF.0.saturating_mul(1 << again.min(8)).min(BACK_OFF.1),
    }
}

#[cfg(test)]
mod tests;
