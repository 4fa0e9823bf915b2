//! Lives of mounts.

use proptest::prelude::*;

use super::*;

const EVERY: Duration = Duration::from_secs(5);

#[test]
fn a_mount_that_answers_is_asked_again_in_time() {
    let mut story = Story::new();
    story.asks().after(10).on(answered(200));
    assert_eq!((story.life.state(), story.life.latency()), (MountState::Ok, Some(Duration::from_millis(200))));
    assert_eq!(story.due_in(), Some(4_990));
    assert_eq!(story.life.sizes(story.now.wall), Some((SIZES, None)));
    story.after(5_000).asks().after(2_000).on(answered(1_500));
    assert_eq!(story.life.state(), MountState::Slow);
}

#[test]
fn a_mount_that_hangs_stays_hung_until_it_answers_in_time() {
    let mut story = Story::new();
    story.asks().on(answered(1)).after(5_000).asks();
    let asked = story.now.wall;
    story.after(5_000).on(came(Fate::Silent(asked)));
    assert_eq!((story.life.state(), story.life.since(), story.due_in()), (MountState::Hung, asked, None));
    assert_eq!(story.life.sizes(story.now.wall), Some((SIZES, Some(Timestamp(0)))), "with their age");
    assert_eq!(story.life.latency(), None);
    story.after(60_000).on(Event::AnsweredLate { failed: false });
    assert_eq!((story.life.state(), story.due_in()), (MountState::Hung, Some(0)), "asked anew at once");
    story.asks().on(answered(1));
    assert_eq!((story.life.state(), story.life.since()), (MountState::Ok, story.now.wall));
}

#[test]
fn one_that_hangs_again_and_again_is_asked_less_and_less() {
    let mut story = Story::new();
    let mut waits = Vec::new();
    for _ in 0..7 {
        story.hang();
        waits.push(story.due_in().unwrap() / 1_000);
        story.after(waits.last().unwrap() * 1_000).asks().on(answered(1));
    }
    assert_eq!(waits, [0, 5, 10, 20, 40, 60, 60]);
    story.after(300_000).hang();
    assert_eq!(story.due_in(), Some(0), "after five calm minutes it is the first time again");
}

#[test]
fn a_late_error_is_looked_into_at_once() {
    let mut story = Story::new();
    for _ in 0..4 {
        story.hang();
    }
    let wait = story.due_in().unwrap();
    story.after(wait).asks();
    let asked = story.now.wall;
    story.after(5_000).on(came(Fate::Silent(asked))).on(Event::AnsweredLate { failed: true });
    assert_eq!((story.life.state(), story.due_in()), (MountState::Hung, Some(0)));
    story.asks().on(came(Fate::Answered(bad(MountState::Gone))));
    assert_eq!(story.life.state(), MountState::Gone);
}

#[test]
fn a_stopped_process_is_a_hung_mount_that_nobody_asks() {
    let mut story = Story::new();
    story.asks().on(answered(1)).after(5_000).on(Event::Stopped);
    assert_eq!((story.life.state(), story.life.reason()), (MountState::Hung, "process_stopped"));
    assert_eq!((story.life.since(), story.due_in()), (story.now.wall, None));
    story.after(20_000).on(Event::Stopped).after(5_000).on(Event::Runs);
    assert_eq!((story.life.state(), story.due_in()), (MountState::Hung, Some(0)));
    story.asks().on(answered(1));
    assert_eq!(story.life.state(), MountState::Ok);
}

#[test]
fn an_answer_of_before_the_stop_does_not_count() {
    let mut story = Story::new();
    story.asks().on(Event::Stopped).on(answered(1));
    assert_eq!(story.life.state(), MountState::Hung);
    assert_eq!(story.life.sizes(story.now.wall), Some((SIZES, Some(story.now.wall))));
}

#[test]
fn requests_that_no_longer_wait_end_the_back_off() {
    let mut story = Story::new();
    for _ in 0..4 {
        story.hang();
    }
    assert_eq!(story.due_in(), Some(20_000));
    story.on(Event::OthersGoOn);
    assert_eq!(story.due_in(), Some(0));
}

#[test]
fn one_child_lost_is_an_accident_and_two_are_not() {
    let mut story = Story::new();
    story.asks().on(answered(1)).after(5_000).asks().on(came(Fate::NotAsked("it ended".into())));
    assert_eq!((story.life.state(), story.due_in()), (MountState::Ok, Some(0)));
    story.asks().on(came(Fate::NotAsked("it ended".into())));
    assert_eq!((story.life.state(), story.life.reason()), (MountState::Unknown, "it ended"));
    assert_eq!(story.due_in(), Some(5_000));
}

#[test]
fn the_limit_makes_unknown_what_was_well_and_leaves_hung_what_hung() {
    let mut story = Story::new();
    story.asks().on(answered(1)).after(5_000).asks().on(came(Fate::TooManyHang));
    assert_eq!((story.life.state(), story.life.reason()), (MountState::Unknown, "probe_limit"));
    let mut hung = Story::new();
    hung.hang().asks().on(came(Fate::TooManyHang));
    assert_eq!(hung.life.state(), MountState::Hung);
}

#[test]
fn what_a_child_of_an_earlier_life_waits_for_is_hung() {
    let mut story = Story::new();
    story.asks().on(came(Fate::StillAsked(Timestamp(-70_000))));
    assert_eq!((story.life.state(), story.life.since()), (MountState::Hung, Timestamp(-70_000)));
    assert_eq!(story.due_in(), Some(5_000));
}

#[test]
fn a_question_of_before_has_its_time_too() {
    let mut story = Story::new();
    story.asks().on(came(Fate::StillAsked(Timestamp(-1_000))));
    assert_eq!((story.life.state(), story.life.reason()), (MountState::Unknown, "still_asked"));
    assert_eq!(story.due_in(), Some(4_000));
    story.after(4_000).asks().on(came(Fate::StillAsked(Timestamp(-1_000))));
    assert_eq!((story.life.state(), story.life.since()), (MountState::Hung, Timestamp(-1_000)));
}

#[test]
fn an_answer_of_another_mount_does_not_keep_this_one_well() {
    let mut story = Story::new();
    story.asks().on(answered(1)).after(5_000).asks().on(came(Fate::OtherAnswered));
    assert_eq!((story.life.state(), story.due_in()), (MountState::Ok, Some(5_000)));
    story.after(5_000).asks().on(came(Fate::OtherAnswered));
    assert_eq!(story.life.state(), MountState::Unknown);
}

#[test]
fn what_nobody_asked_changes_nothing() {
    let mut story = Story::new();
    story.life = Life::unasked("shadowed", story.now);
    story.on(answered(1)).on(came(Fate::Silent(Timestamp(0)))).on(Event::AnsweredLate { failed: true });
    assert_eq!((story.life.state(), story.life.reason()), (MountState::Unknown, "shadowed"));
    assert_eq!(story.due_in(), None);
}

#[test]
fn others_that_wait_hasten_the_question_and_break_no_back_off() {
    let mut story = Story::new();
    story.asks().on(answered(1)).after(1_000).on(Event::OthersWait);
    assert_eq!((story.life.state(), story.due_in()), (MountState::Ok, Some(0)));
    let mut hung = Story::new();
    for _ in 0..3 {
        hung.hang();
    }
    hung.on(Event::OthersWait);
    assert_eq!(hung.due_in(), Some(10_000));
}

#[test]
fn what_left_is_gone_and_never_asked() {
    let mut story = Story::new();
    story.hang().on(Event::Left);
    assert_eq!((story.life.state(), story.life.reason()), (MountState::Gone, "not_mounted"));
    assert_eq!(story.due_in(), None);
    let missing = Life::missing(Timestamp(-5), story.now);
    assert_eq!((missing.state(), missing.since(), missing.due()), (MountState::Gone, Timestamp(-5), None));
}

#[test]
fn without_sizes_in_the_answer_the_old_ones_age() {
    let mut story = Story::new();
    story.asks().on(answered(1)).after(5_000).asks();
    let unsized_answer = Verdict { sizes: Size::RemoteFailed, ..good(1) };
    story.on(came(Fate::Answered(unsized_answer)));
    assert_eq!(story.life.state(), MountState::Ok);
    assert_eq!(story.life.sizes(story.now.wall), Some((SIZES, Some(Timestamp(0)))));
}

proptest! {
    #[test]
    fn whatever_happens_the_row_stays_honest(steps in proptest::collection::vec((0_u64..20_000, events()), 0..60)) {
        let mut story = Story::new();
        let mut stopped = false;
        for (millis, event) in steps {
            story.after(millis);
            let before = story.life.clone();
            // Nobody is asked twice, and only who is due.
            if event == Event::Asked && before.due().is_none() {
                continue;
            }
            story.on(event.clone());
            stopped = event == Event::Stopped
                || stopped && !matches!(event, Event::Runs | Event::OwnerEnded | Event::Left);
            let life = &story.life;
            let good = matches!(life.state(), MountState::Ok | MountState::Slow);
            if !good {
                prop_assert!(life.sizes(story.now.wall).is_none_or(|(_, read_at)| read_at.is_some()));
                prop_assert_eq!(life.latency(), None);
            }
            if before.state() == MountState::Hung && life.state() != MountState::Hung {
                prop_assert!(matches!(event, Event::Came(Fate::Answered(_)) | Event::Left));
            }
            if stopped {
                prop_assert!(life.due().is_none());
            }
            if matches!(life.question, Question::Asked(_) | Question::Silent) {
                prop_assert!(life.due().is_none());
            }
            prop_assert!(life.since() <= story.now.wall);
            if before.state() == life.state() {
                prop_assert_eq!(before.since(), life.since());
            }
            prop_assert!(life.due().is_none_or(|due| due <= story.now.steady + BACK_OFF.1));
            prop_assert!(life.state() == MountState::Ok || life.state() == MountState::Slow || !life.reason().is_empty() || life.state() == MountState::Unknown);
        }
    }
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Asked),
        2 => (0_u64..3_000).prop_map(|millis| came(Fate::Answered(good(millis)))),
        1 => prop_oneof![Just(MountState::Gone), Just(MountState::Stale), Just(MountState::Denied), Just(MountState::Error)]
            .prop_map(|state| came(Fate::Answered(bad(state)))),
        1 => Just(came(Fate::Silent(Timestamp(0)))),
        1 => any::<bool>().prop_map(|failed| Event::AnsweredLate { failed }),
        1 => Just(came(Fate::StillAsked(Timestamp(0)))),
        1 => Just(came(Fate::TooManyHang)),
        1 => Just(came(Fate::NotAsked("it ended".to_owned()))),
        1 => Just(Event::Stopped),
        1 => Just(Event::Runs),
        1 => Just(Event::OwnerEnded),
        1 => Just(Event::OthersGoOn),
        1 => Just(Event::OthersWait),
        1 => Just(came(Fate::OtherAnswered)),
    ]
}

const SIZES: Sizes = Sizes { total_bytes: 10, used_bytes: 4, available_bytes: 6 };

fn good(millis: u64) -> Verdict {
    let state = if millis > 1_000 { MountState::Slow } else { MountState::Ok };
    Verdict { state, reason: String::new(), sizes: Size::Known(SIZES), took: Duration::from_millis(millis) }
}

fn bad(state: MountState) -> Verdict {
    Verdict { state, reason: "EIO".into(), sizes: Size::Nothing, took: Duration::ZERO }
}

fn came(fate: Fate) -> Event {
    Event::Came(fate)
}

fn answered(millis: u64) -> Event {
    came(Fate::Answered(good(millis)))
}

/// A mount and a clock.
struct Story {
    life: Life,
    now: Now,
}

impl Story {
    fn new() -> Self {
        let now = Now { wall: Timestamp(0), steady: Instant::now() };
        Self { life: Life::new(EVERY, now), now }
    }

    fn after(&mut self, millis: u64) -> &mut Self {
        let span = Duration::from_millis(millis);
        self.now = Now { wall: self.now.wall.plus(span), steady: self.now.steady + span };
        self
    }

    fn on(&mut self, event: Event) -> &mut Self {
        self.life.on(event, self.now);
        self
    }

    fn asks(&mut self) -> &mut Self {
        assert!(self.life.due().is_some_and(|due| due <= self.now.steady), "{:?}", self.life);
        self.on(Event::Asked)
    }

    /// Asks, waits in vain, and hears late.
    fn hang(&mut self) -> &mut Self {
        let wait = self.due_in().unwrap();
        self.after(wait).asks();
        let asked = self.now.wall;
        self.after(5_000).on(came(Fate::Silent(asked))).on(Event::AnsweredLate { failed: false })
    }

    fn due_in(&self) -> Option<u64> {
        let wait = self.life.due()?.saturating_duration_since(self.now.steady);
        Some(u64::try_from(wait.as_millis()).unwrap())
    }
}
