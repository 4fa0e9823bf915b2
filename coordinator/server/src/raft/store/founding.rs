//! Making a log: the identity first, the first segment last, so that what is half-made can be told.

use super::{
    Checkpoint, CreateError, HardState, Identity, Settings, checkpoint,
    disk::{Disk, DiskFile as _},
    identity::{self, Kind},
    place::{PlaceError, UNFINISHED, fill, place},
    recovery::is_ours,
    segment::{self, Before},
};

/// Makes a log in an empty folder.
pub(super) fn found<D: Disk>(
    disk: &D,
    identity: &Identity,
    settings: &Settings,
    first: &Checkpoint,
) -> Result<(), CreateError> {
    let (unfinished, whole): (Vec<_>, Vec<_>) = disk
        .list()?
        .into_iter()
        .map(|file| file.name)
        .filter(|name| is_ours(name))
        .partition(|name| name.ends_with(UNFINISHED));
    if let Some(name) = whole.into_iter().next() {
        return Err(CreateError::Exists(name));
    }
    unfinished.iter().try_for_each(|name| disk.remove(name))?;
    place(disk, identity::FILE, |file| file.write_at(0, &identity::head(Kind::Identity, identity, &[])))?;
    place(disk, &checkpoint::file(first.index), |file| first.write::<D>(identity, file).map(drop))?;
    let hard_state = HardState { term: first.term, vote: 0, commit: first.index };
    let before = Before { crc: 0, last: first.position(), hard_state };
    let head = segment::head(identity, 1, settings.segment_bytes, &before);
    place(disk, &segment::file(1), |file| {
        fill::<D>(file, settings.segment_bytes).and_then(|()| file.write_at(0, &head))
    })?;
    Ok(())
}

impl From<PlaceError> for CreateError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::NoRoom => Self::NoRoom,
            PlaceError::Disk(error) => Self::Disk(error),
        }
    }
}
