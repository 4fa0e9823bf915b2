//! What goes wrong, drawn up front: a run is its seed.

use mainstay_coordinator::raft::store::disk::faulty::Dice;

/// One thing that goes wrong; `u64`s choose whom it meets, by number of those that are there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A process ends after so many more effects; the machine with it, or not.
    Crash { who: u64, after: u64, power: bool },
    /// The leader's.
    CrashLeader { after: u64, power: bool },
    /// A process ends in the middle of a change of the disk.
    DieWriting { who: u64, changes: u64 },
    /// Everybody at once.
    PowerCut,
    /// All who are down start.
    StartAll,
    /// Nothing gets to or from it.
    Isolate { who: u64 },
    /// Nothing gets to or from the leader.
    IsolateLeader,
    /// Nothing gets from one to the other.
    OneWay { from: u64, to: u64 },
    /// The network is whole again.
    Heal,
    /// So many of 100 messages are lost, doubled, delayed.
    Weather { lost: u64, doubled: u64, delayed: u64 },
    /// A disk takes this long for a write, in milliseconds.
    Slow { who: u64, ms: u64 },
    /// The leader's disk does nothing more until the machine starts again.
    HangLeader,
    /// A sync fails.
    SyncError { who: u64 },
    /// A disk is full, for a second.
    Full { who: u64 },
    /// A machine stands still, in milliseconds.
    Pause { who: u64, ms: u64 },
    /// A new replica joins.
    Add,
    /// A replica is removed.
    Remove { who: u64 },
    /// A learner takes a voter's place.
    Replace { who: u64 },
    /// Leadership is given away.
    Transfer,
    /// The others are told that the leader's process is gone, which is not so.
    WrongHint,
    /// A disk is emptied.
    Wipe { who: u64 },
    /// A disk is after so many milliseconds what it is now.
    GoBack { who: u64, ms: u64 },
    /// A program ends, and one bit of its disk is another when it starts again.
    Flip { who: u64, bit: u64 },
    /// The clock of a machine jumps, in milliseconds.
    ClockJump { who: u64, ms: i64 },
    /// A checkpoint is made whatever happens.
    Checkpoint { who: u64 },
}

/// Faults with their time in microseconds, in order.
pub(crate) fn plan(dice: &mut Dice, until: u64) -> Vec<(u64, Fault)> {
    // A seed does not have every kind of fault: some bugs hide behind others.
    let kinds: Vec<u64> = (0..26).filter(|_| dice.percent(45)).collect();
    let count = 4 + dice.below(28);
    let mut faults: Vec<_> = (0..count)
        .filter_map(|_| {
            let at = below(dice, until);
            let kind = *kinds.get(dice.below(kinds.len()))?;
            Some((at, draw(dice, kind)))
        })
        .collect();
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn draw(dice: &mut Dice, kind: u64) -> Fault {
    let who = dice.roll();
    match kind {
        0 | 1 => Fault::Crash { who, after: below(dice, 30), power: dice.percent(60) },
        2 | 3 => Fault::CrashLeader { after: below(dice, 30), power: dice.percent(60) },
        4 => Fault::DieWriting { who, changes: below(dice, 12) },
        5 => Fault::PowerCut,
        6 => Fault::StartAll,
        7 => Fault::Isolate { who },
        8 => Fault::IsolateLeader,
        9 => Fault::OneWay { from: who, to: dice.roll() },
        10 => Fault::Heal,
        11 => Fault::Weather { lost: below(dice, 25), doubled: below(dice, 15), delayed: below(dice, 30) },
        12 => Fault::Slow { who, ms: 5 + below(dice, 200) },
        13 => Fault::HangLeader,
        14 => Fault::SyncError { who },
        15 => Fault::Full { who },
        16 => Fault::Pause { who, ms: 20 + below(dice, 1_500) },
        17 => match below(dice, 6) {
            0 => Fault::Remove { who },
            1..=3 => Fault::Replace { who },
            _ => Fault::Add,
        },
        18 => Fault::Transfer,
        19 => Fault::WrongHint,
        20 => Fault::Wipe { who },
        21 | 22 => Fault::GoBack { who, ms: 20 + below(dice, 1_500) },
        23 => Fault::Flip { who, bit: dice.roll() },
        24 => {
            let day = 86_400_000;
            Fault::ClockJump { who, ms: if dice.percent(50) { day } else { -day } }
        }
        _ => Fault::Checkpoint { who },
    }
}

pub(crate) fn below(dice: &mut Dice, end: u64) -> u64 {
    dice.roll().checked_rem(end).unwrap_or(0)
}
