//! From rows to text.

pub(crate) mod cell;
pub(crate) mod json;
pub(crate) mod listing;
pub(crate) mod look;
pub(crate) mod out;
pub(crate) mod row;
pub(crate) mod rows;
pub(crate) mod sheet;
pub(crate) mod style;
pub(crate) mod swarm;
pub(crate) mod table;
pub(crate) mod watch;

/// How a listing is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For scripts: an array of objects
    Json,
    /// For scripts
    Yaml,
    /// For people with more room
    Wide,
    /// Names only, one a line
    Name,
}

impl Format {
    /// True where people read it, and remarks do not disturb.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}
