//! The table of mounts on its way to the board: what changed its state is told at once, and logged.

use std::{collections::BTreeMap, sync::Arc};

use mainstay_common::{state::MountState, text::Shown};
use mainstay_proto::v1 as pb;

use crate::board::{Board, Table};

/// Remembers which states were told.
#[derive(Debug, Default)]
pub(super) struct Teller {
    /// By path: the state of the mount, and of the remote. `None` before the first table.
    told: Option<BTreeMap<Vec<u8>, (i32, i32)>>,
}

impl Teller {
    /// Puts the table on the board.
    pub(super) fn tell(&mut self, board: &Board, table: Table<pb::Mount>) {
        let states: BTreeMap<_, _> =
            table.rows.iter().map(|(path, row)| (path.clone(), (row.state, row.remote_state))).collect();
        let nothing = BTreeMap::new();
        log(self.told.as_ref().unwrap_or(&nothing), &table);
        let urgent = self.told.replace(states).is_some_and(|before| Some(&before) != self.told.as_ref());
        let table = Some(Arc::new(table));
        if urgent {
            board.put_urgent(|board| board.mounts = table);
        } else {
            board.put(|board| board.mounts = table);
        }
    }
}

/// One line for every change of a mount's state; that all is well at the start goes without saying.
fn log(before: &BTreeMap<Vec<u8>, (i32, i32)>, table: &Table<pb::Mount>) {
    for (path, row) in &table.rows {
        let state = MountState::from_number(row.state).unwrap_or(MountState::Unknown);
        let unchanged = match before.get(path) {
            Some((before, _)) => *before == row.state,
            None => matches!(state, MountState::Ok | MountState::Unknown),
        };
        if !unchanged {
            tracing::info!(path = %Shown::new(path), %state, reason = %Shown::new(&row.reason), "mount");
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_common::state::RemoteState;

    use super::*;

    #[test]
    fn a_state_that_changed_is_urgent() {
        let (board, mut teller) = (Board::default(), Teller::default());
        let mut tell = |rows: &[(&[u8], MountState, RemoteState)]| {
            let row = |(path, state, remote): &(&[u8], MountState, RemoteState)| {
                let (state, remote_state) = (state.number(), remote.number());
                (path.to_vec(), pb::Mount { path: path.to_vec(), state, remote_state, ..pb::Mount::default() })
            };
            teller.tell(&board, Table { rows: rows.iter().map(row).collect(), ..Table::default() });
            board.read().urgent
        };
        assert_eq!(tell(&[]), 0, "the first table goes out anyway");
        assert_eq!(tell(&[(b"/a", MountState::Ok, RemoteState::Ok)]), 1);
        assert_eq!(tell(&[(b"/a", MountState::Ok, RemoteState::Ok)]), 1, "nothing changed");
        assert_eq!(tell(&[(b"/a", MountState::Hung, RemoteState::Ok)]), 2);
        assert_eq!(tell(&[(b"/a", MountState::Hung, RemoteState::Error)]), 3);
        assert_eq!(tell(&[]), 4);
    }
}
