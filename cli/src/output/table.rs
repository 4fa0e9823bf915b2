//! Tables without borders: columns as wide as they must be, cut or left out from the right where the terminal is narrow.

use mainstay_common::{Timestamp, text::columns};

use super::{
    cell::{Align, Cell},
    look::Look,
    style,
};

/// Columns between two cells.
const GAP: usize = 2;
/// A terminal narrower than this gets `key: value`.
const NARROW: usize = 60;

/// A column of a listing.
pub(crate) struct Column<R> {
    pub(crate) title: &'static str,
    pub(crate) align: Align,
    /// Shown with `-o wide` only.
    pub(crate) wide: bool,
    /// Cells may be cut to so many columns; `None`: never cut.
    pub(crate) least: Option<usize>,
    pub(crate) cell: fn(&R, Timestamp) -> Cell,
}

impl<R> Column<R> {
    /// Text: flush left, cut where there is no room.
    pub(crate) const fn text(title: &'static str, least: usize, cell: fn(&R, Timestamp) -> Cell) -> Self {
        Self { title, align: Align::Left, wide: false, least: Some(least), cell }
    }

    /// A state: flush left, never cut.
    pub(crate) const fn state(title: &'static str, cell: fn(&R, Timestamp) -> Cell) -> Self {
        Self { title, align: Align::Left, wide: false, least: None, cell }
    }

    /// A number: flush right, never cut.
    pub(crate) const fn number(title: &'static str, cell: fn(&R, Timestamp) -> Cell) -> Self {
        Self { title, align: Align::Right, wide: false, least: None, cell }
    }

    /// The same column, with `-o wide` only.
    pub(crate) const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

/// Columns and widths that were settled for some rows.
#[derive(Debug)]
pub(crate) struct Grid {
    columns: Vec<Settled>,
    narrow: bool,
}

#[derive(Debug)]
struct Settled {
    title: &'static str,
    align: Align,
    width: usize,
}

/// What a column would like to have.
#[derive(Clone, Copy, Debug)]
struct Wish {
    full: usize,
    least: usize,
}

impl Grid {
    /// Settles the columns for these cells, one list of them per row.
    pub(crate) fn settle<R>(shown: &[&Column<R>], cells: &[Vec<Cell>], look: &Look) -> Self {
        let narrow = look.columns().is_some_and(|room| room < NARROW);
        let wish = |(at, column): (usize, &&Column<R>)| {
            let widest = cells.iter().map(|row| row[at].columns()).max().unwrap_or(0);
            let full = widest.max(columns(column.title));
            Wish { full, least: column.least.map_or(full, |least| least.max(columns(column.title)).min(full)) }
        };
        let wishes: Vec<Wish> = shown.iter().enumerate().map(wish).collect();
        let widths = match look.columns() {
            Some(room) if !narrow => share(&wishes, room),
            _ => wishes.iter().map(|wish| wish.full).collect(),
        };
        let settled =
            |(column, width): (&&Column<R>, usize)| Settled { title: column.title, align: column.align, width };
        Self { columns: shown.iter().zip(widths).map(settled).collect(), narrow }
    }

    /// The line of titles; `None` where every line names its value.
    pub(crate) fn head(&self, look: &Look) -> Option<String> {
        let titles: Vec<Cell> = self.columns.iter().map(|column| Cell::text(column.title)).collect();
        (!self.narrow).then(|| style::bold(&self.join(&titles, look), look.colour))
    }

    /// One row: a line, or on a narrow terminal a line per value and an empty one.
    pub(crate) fn row(&self, cells: &[Cell], look: &Look) -> String {
        if self.narrow { self.sheet(cells, look) } else { self.join(cells, look) }
    }

    fn join(&self, cells: &[Cell], look: &Look) -> String {
        let last = self.columns.len().saturating_sub(1);
        let drawn: Vec<String> = self
            .columns
            .iter()
            .zip(cells)
            .enumerate()
            .map(|(at, (column, cell))| cell.draw(column.width, column.align, at == last, look))
            .collect();
        drawn.join(&" ".repeat(GAP))
    }

    fn sheet(&self, cells: &[Cell], look: &Look) -> String {
        let keys = self.columns.iter().map(|column| columns(column.title) + 2).max().unwrap_or(0);
        let room = look.columns().unwrap_or(NARROW).saturating_sub(keys);
        let line = |(column, cell): (&Settled, &Cell)| {
            let key = format!("{}:", column.title.to_lowercase());
            format!("{key:<keys$}{}\n", cell.draw(room, Align::Left, true, look))
        };
        self.columns.iter().zip(cells).map(line).collect()
    }
}

/// Widths within `room`: columns fall off at the right until the rest fits when cut, then what is left over goes to
/// those that need least to be whole. The first column always stays.
fn share(wishes: &[Wish], room: usize) -> Vec<usize> {
    let needs = |kept: &[Wish]| kept.iter().map(|wish| wish.least).sum::<usize>() + GAP * kept.len().saturating_sub(1);
    let mut kept = wishes.len();
    while kept > 1 && needs(&wishes[..kept]) > room {
        kept -= 1;
    }
    let wishes = &wishes[..kept];
    let mut widths: Vec<usize> = wishes.iter().map(|wish| wish.least.min(room)).collect();
    let mut spare = room.saturating_sub(needs(wishes));
    let mut wanting: Vec<usize> = (0..kept).filter(|at| wishes[*at].full > wishes[*at].least).collect();
    wanting.sort_by_key(|at| wishes[*at].full - wishes[*at].least);
    let mut left = wanting.len();
    for at in wanting {
        let given = (wishes[at].full - wishes[at].least).min(spare / left);
        widths[at] += given;
        spare -= given;
        left -= 1;
    }
    widths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_then_left_out_from_the_right() {
        let wish = |full, least| Wish { full, least };
        let wishes = [wish(10, 8), wish(40, 12), wish(8, 8), wish(20, 20)];
        assert_eq!(share(&wishes, 90), [10, 40, 8, 20]);
        assert_eq!(share(&wishes, 60), [10, 16, 8, 20]);
        assert_eq!(share(&wishes, 50), [10, 28, 8]);
        assert_eq!(share(&wishes, 20), [10]);
        assert_eq!(share(&wishes, 5), [5]);
    }

    proptest! {
        #[test]
        fn no_line_is_longer_than_the_room(sizes in proptest::collection::vec((1usize..60, 1usize..60), 1..9), room in 1usize..200) {
            let wishes: Vec<Wish> = sizes.iter().map(|(a, b)| Wish { full: *a.max(b), least: *a.min(b) }).collect();
            let widths = share(&wishes, room);
            prop_assert!(!widths.is_empty());
            prop_assert!(widths.iter().sum::<usize>() + GAP * (widths.len() - 1) <= room);
            prop_assert!(widths.iter().zip(&wishes).all(|(width, wish)| *width <= wish.full));
        }
    }
}
