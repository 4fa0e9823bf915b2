//! What is known of volumes, from everybody who knows something, becomes their rows. Pure.

use std::collections::BTreeMap;

use mainstay_common::{
    Timestamp,
    metric::{Readings, catalogue as m},
};
use mainstay_proto::v1 as pb;

use super::{measures::Measures, options::Backing};
use crate::{
    board::Table,
    collect::{container::Uses, readings},
};

/// The engine's own driver, which keeps volumes in folders.
const LOCAL: &str = "local";
/// Why a volume has no size that will have one soon.
pub(crate) const NOT_YET: &str = "not measured yet";
/// More volumes than this are counted, not listed.
pub(super) const LIMIT: usize = 5_000;

/// All volumes by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Volumes {
    /// Those in the engine's folder; `None` until it was read.
    local: Option<BTreeMap<String, Backing>>,
    /// The others that anybody named, with their drivers.
    others: BTreeMap<String, String>,
    /// The folder has more than could be read.
    cut: bool,
}

impl Volumes {
    /// The engine's folder was read. What stands behind those that were there already is known.
    pub(super) fn folder(&mut self, names: Vec<String>, cut: bool) {
        let mut before = self.local.take().unwrap_or_default();
        let unread = || Backing::Unknown("not read yet".to_owned());
        let backing = |name: String| {
            let known = before.remove(&name).unwrap_or_else(unread);
            (name, known)
        };
        self.local = Some(names.into_iter().map(backing).collect());
        self.cut = cut;
    }

    /// What stands behind a volume of that folder was read.
    pub(super) fn backing(&mut self, name: &str, backing: Backing) {
        if let Some(there) = self.local.as_mut().and_then(|local| local.get_mut(name)) {
            *there = backing;
        }
    }

    /// Volumes of the folder about which nobody asked yet.
    pub(super) fn unread(&self) -> impl Iterator<Item = &str> {
        let unread = self.local.iter().flatten().filter(|(_, backing)| matches!(backing, Backing::Unknown(_)));
        unread.map(|(name, _)| name.as_str())
    }

    /// The engine named a volume.
    pub(super) fn named(&mut self, name: &str, driver: &str) {
        if driver != LOCAL && !driver.is_empty() {
            self.others.insert(name.to_owned(), driver.to_owned());
        }
    }

    /// The engine said that a volume is gone.
    pub(super) fn destroyed(&mut self, name: &str) {
        self.others.remove(name);
        if let Some(local) = &mut self.local {
            local.remove(name);
        }
    }

    /// Another engine, or the same one anew: everything is asked again.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_known(&self, name: &str) -> bool {
        self.others.contains_key(name) || self.local.as_ref().is_some_and(|local| local.contains_key(name))
    }

    /// Volumes whose folders can be measured.
    pub(super) fn measurable(&self) -> impl Iterator<Item = &str> {
        self.local.iter().flatten().filter(|(_, backing)| **backing == Backing::Folder).map(|(name, _)| name.as_str())
    }

    /// The table; `None` as long as nobody knows which volumes there are.
    pub(super) fn table(
        &self,
        uses: &Uses,
        measures: &Measures,
        mounted: impl Fn(&str) -> bool,
        at: Timestamp,
    ) -> Option<Table<pb::Volume>> {
        let local = self.local.as_ref()?;
        let mut drivers: BTreeMap<&str, (&str, Backing)> =
            self.others.iter().map(|(name, driver)| (name.as_str(), (driver.as_str(), Backing::Driver))).collect();
        for (name, used) in &uses.volumes {
            let driver = if used.driver.is_empty() { LOCAL } else { &used.driver };
            drivers.entry(name).or_insert_with(|| (driver, Backing::Driver));
        }
        drivers.extend(local.iter().map(|(name, backing)| (name.as_str(), (LOCAL, backing.clone()))));
        let listed = drivers.iter().take(LIMIT);
        let row = |(name, (driver, backing)): (&&str, &(&str, Backing))| {
            let row = row(name, driver, backing, uses, measures, mounted(name));
            (name.as_bytes().to_vec(), row)
        };
        let left_out = drivers.len().saturating_sub(LIMIT) as u64 + u64::from(self.cut);
        Some(Table { read_at: at, rows: listed.map(row).collect(), left_out })
    }
}

fn row(
    name: &str,
    driver: &str,
    backing: &Backing,
    uses: &Uses,
    measures: &Measures,
    something_mounted: bool,
) -> pb::Volume {
    let measure = measures.of(name);
    let mut values = Readings::new();
    if let Some(measure) = measure {
        values.set_count(&m::VOLUME_SIZE_BYTES, measure.measured.size_bytes);
        values.set_count(&m::VOLUME_APPARENT_BYTES, measure.measured.apparent_bytes);
        values.set_count(&m::VOLUME_FILES, measure.measured.files);
        values.set_count(&m::VOLUME_APPROXIMATE, u64::from(measure.measured.approximate));
    }
    let failure = measures.failure(name).unwrap_or_default();
    let reason = match (backing, measure) {
        (Backing::Folder, _) if something_mounted => "a filesystem is mounted there",
        (Backing::Folder, _) if !failure.is_empty() => failure,
        (Backing::Folder, None) => NOT_YET,
        (backing, _) => backing.reason(),
    };
    let used = uses.volumes.get(name);
    pb::Volume {
        name: name.as_bytes().to_vec(),
        driver: driver.to_owned(),
        used_by: used.map(|used| used.by.clone()).unwrap_or_default(),
        in_use: uses.in_use(name),
        measured_at_ms: measure.map(|measure| measure.at.0),
        readings: readings(&values),
        reason: reason.to_owned(),
        source: backing.source().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{collect::container::Used, walker::Measured};

    const NOON: Timestamp = Timestamp(43_200_000);

    #[test]
    fn nothing_is_known_before_the_folder_was_read() {
        let mut volumes = Volumes::default();
        volumes.named("cloud", "rclone");
        assert_eq!(volumes.table(&Uses::default(), &measures(), |_| false, NOON), None);
        volumes.folder(Vec::new(), false);
        assert_eq!(names(&table(&volumes, &Uses::default())), ["cloud"]);
    }

    #[test]
    fn who_keeps_it_and_why_it_has_no_size() {
        let mut volumes = Volumes::default();
        volumes.folder(vec!["data".into(), "share".into(), "new".into()], false);
        volumes.backing("data", Backing::Folder);
        volumes.backing("share", Backing::Network(b":/x".to_vec()));
        let mut uses = Uses::default();
        uses.volumes.insert("data".into(), Used { driver: "local".into(), by: vec!["web".into()] });
        uses.volumes.insert("plugin".into(), Used { driver: "rclone:latest".into(), by: vec!["job".into()] });
        let table = table(&volumes, &uses);
        let of = |name: &str| table.rows[name.as_bytes()].clone();
        assert_eq!((of("data").in_use, of("data").reason.as_str()), (Some(true), ""));
        assert_eq!(
            Readings::from_lists(&of("data").readings.unwrap().metric, &[7.0; 4]).count(&m::VOLUME_SIZE_BYTES),
            Some(7)
        );
        assert_eq!((of("share").source.as_slice(), of("share").in_use), (&b":/x"[..], Some(false)));
        assert!(of("share").reason.contains("server") && of("share").readings.is_none());
        assert_eq!(
            (of("plugin").driver.as_str(), of("plugin").reason.as_str()),
            ("rclone:latest", "another driver keeps it")
        );
        assert_eq!(of("new").reason, "not read yet");
        assert_eq!(volumes.unread().collect::<Vec<_>>(), ["new"]);
        assert_eq!(volumes.measurable().collect::<Vec<_>>(), ["data"]);
    }

    #[test]
    fn what_was_read_once_stays_known_and_what_is_gone_goes() {
        let mut volumes = Volumes::default();
        volumes.folder(vec!["a".into(), "b".into()], false);
        volumes.backing("a", Backing::Folder);
        volumes.folder(vec!["a".into()], true);
        assert_eq!(volumes.measurable().collect::<Vec<_>>(), ["a"]);
        assert_eq!(table(&volumes, &Uses::default()).left_out, 1);
        volumes.destroyed("a");
        assert!(names(&table(&volumes, &Uses::default())).is_empty());
    }

    fn table(volumes: &Volumes, uses: &Uses) -> Table<pb::Volume> {
        volumes.table(uses, &measures(), |_| false, NOON).unwrap()
    }

    fn measures() -> Measures {
        let mut measures = Measures::load(None, Duration::from_secs(3_600));
        measures.measured("data", NOON, Measured { size_bytes: 7, ..Measured::default() });
        measures
    }

    fn names(table: &Table<pb::Volume>) -> Vec<String> {
        table.rows.keys().map(|name| String::from_utf8(name.clone()).unwrap()).collect()
    }
}
