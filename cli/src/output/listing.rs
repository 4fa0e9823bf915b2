//! A listing in any format.

use std::borrow::Cow;

use mainstay_common::{ExitCode, Failure, Timestamp, process::now};

use super::{
    Format,
    cell::Cell,
    json,
    look::Look,
    out,
    row::{Row, sort},
    table::{Column, Grid},
};

/// Rows, and what must be said about those that are not there.
#[derive(Debug)]
pub(crate) struct Listing<R> {
    pub(crate) rows: Vec<R>,
    /// What cannot be known now, a line each; escaped.
    pub(crate) notes: Vec<String>,
    /// What would fill it, for when it is empty.
    pub(crate) filler: Cow<'static, str>,
}

impl<R: Row> Listing<R> {
    pub(crate) fn new(rows: Vec<R>, filler: impl Into<Cow<'static, str>>) -> Self {
        Self { rows, notes: Vec::new(), filler: filler.into() }
    }

    /// In this order.
    pub(crate) fn sorted(mut self, order: R::Order) -> Self {
        sort(&mut self.rows, order);
        self
    }

    /// Prints it once: data on standard output, all else on standard error.
    ///
    /// # Errors
    /// Where standard output takes nothing.
    pub(crate) fn print(&self, format: Format) -> Result<(), Failure> {
        let look = Look::of_stdout();
        out::say(&self.text(format, now(), &look)?)?;
        if format.is_for_people() {
            self.remarks().for_each(|remark| out::remark(&remark));
        } else {
            // A script, too, must be able to tell that nothing is known from that there is nothing.
            self.notes.iter().for_each(out::remark);
        }
        Ok(())
    }

    /// What standard output gets.
    pub(crate) fn text(&self, format: Format, now: Timestamp, look: &Look) -> Result<String, Failure> {
        match format {
            Format::Json => json::pretty(&self.rows),
            Format::Yaml => json::yaml(&self.rows),
            Format::Name => Ok(self.rows.iter().map(|row| row.name() + "\n").collect()),
            Format::Table | Format::Wide => Ok(Table::settle(&self.rows, format, now, look).whole(look)),
        }
    }

    /// What is said besides.
    pub(crate) fn remarks(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let filler = self.rows.is_empty().then_some(Cow::Borrowed(self.filler.as_ref()));
        self.notes.iter().map(|note| Cow::Borrowed(note.as_str())).chain(filler)
    }
}

/// Rows as a table.
pub(crate) struct Table {
    grid: Grid,
    cells: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn settle<R: Row>(rows: &[R], format: Format, now: Timestamp, look: &Look) -> Self {
        let shown: Vec<&Column<R>> =
            R::COLUMNS.iter().filter(|column| !column.wide || format == Format::Wide).collect();
        let cells: Vec<Vec<Cell>> =
            rows.iter().map(|row| shown.iter().map(|column| (column.cell)(row, now)).collect()).collect();
        let grid = Grid::settle(&shown, &cells, look);
        Self { grid, cells }
    }

    /// Titles and rows; nothing where there is no row.
    pub(crate) fn whole(&self, look: &Look) -> String {
        if self.cells.is_empty() {
            return String::new();
        }
        let head = self.grid.head(look).into_iter();
        head.chain(self.rows(look)).flat_map(|line| [line, "\n".into()]).collect()
    }

    pub(crate) fn head(&self, look: &Look) -> Option<String> {
        self.grid.head(look)
    }

    pub(crate) fn rows<'a>(&'a self, look: &'a Look) -> impl Iterator<Item = String> + 'a {
        self.cells.iter().map(|cells| self.grid.row(cells, look))
    }
}

/// The rows that somebody asked for by name, or who else is like it.
///
/// # Errors
/// Where there is none, with the nearest name.
pub(crate) fn unknown(noun: &str, asked: &str, names: &[String]) -> Failure {
    let near = mainstay_common::process::config::nearest(asked, names.iter().map(String::as_str));
    let why = match (near, names) {
        (Some(near), _) => format!("nearest: {near}"),
        (None, []) => format!("there is no {noun} at all"),
        (None, _) => format!("no {noun} has that name"),
    };
    Failure::new(ExitCode::Failed, format!("{noun} \"{asked}\" is unknown"), why, format!("mainstay {noun} ls"))
}
