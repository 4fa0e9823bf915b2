//! What every question says besides, and what every answer does.

use std::time::Duration;

use mainstay_common::{text::Shown, time::span};
use serde::Serialize;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
    service::Interceptor,
};

use crate::output::{Format, json};

/// Set by whoever takes a replica's own view.
const STALE: &str = "mainstay-stale";
/// The name of a request that changes something.
const REQUEST: &str = "mainstay-request";
/// Of a stale answer: whose view it is, up to which entry, and when that replica last heard from the leader.
const REPLICA: &str = "mainstay-replica";
/// See [`REPLICA`].
const APPLIED: &str = "mainstay-applied";
/// See [`REPLICA`].
const AGE_MS: &str = "mainstay-age-ms";

/// What a question says besides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// A replica's own view is enough.
    pub(super) stale: bool,
    /// Asked again under this name it is done once.
    pub(super) name: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Manner {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if self.stale {
            request.metadata_mut().insert(STALE, MetadataValue::from_static("1"));
        }
        if let Some(name) = &self.name {
            request.metadata_mut().insert(REQUEST, name.clone());
        }
        Ok(request)
    }
}

/// How old a replica's own view is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Staleness {
    replica: String,
    applied_index: u64,
    /// Since it last heard from the leader; unknown where it has not since it started.
    age_ms: Option<u64>,
}

impl Staleness {
    /// What the answer says of it; older coordinators say nothing.
    pub(super) fn of(answer: &MetadataMap) -> Option<Self> {
        let text = |key| answer.get(key).and_then(|value| value.to_str().ok());
        Some(Self {
            replica: text(REPLICA)?.to_owned(),
            applied_index: text(APPLIED)?.parse().ok()?,
            age_ms: text(AGE_MS).and_then(|age| age.parse().ok()),
        })
    }

    /// A line for standard error: a sentence, or an object where the answer is one for scripts.
    pub(crate) fn note(&self, format: Format) -> String {
        if format == Format::Json {
            return json::line(&Noted { stale: self }).unwrap_or_default().trim_end().to_owned();
        }
        let age = match self.age_ms.map(Duration::from_millis) {
            None => "it has not heard from a leader since it started".to_owned(),
            Some(age) if age < Duration::from_secs(10) => {
                format!("{:.1}s after it last heard from the leader", age.as_secs_f64())
            }
            Some(age) => format!("{} after it last heard from the leader", span(age)),
        };
        format!("stale: as {} knows it, up to entry {}; {age}", Shown::new(&self.replica), self.applied_index)
    }
}

#[derive(Serialize)]
struct Noted<'a> {
    stale: &'a Staleness,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_old_it_is_and_nothing_is_made_up() {
        let mut answer = MetadataMap::new();
        assert_eq!(Staleness::of(&answer), None);
        answer.insert(REPLICA, MetadataValue::from_static("r2"));
        answer.insert(APPLIED, MetadataValue::from_static("120"));
        let unknown = Staleness::of(&answer).unwrap();
        insta::assert_snapshot!(unknown.note(Format::Table), @"stale: as r2 knows it, up to entry 120; it has not heard from a leader since it started");
        answer.insert(AGE_MS, MetadataValue::from_static("1230"));
        let known = Staleness::of(&answer).unwrap();
        insta::assert_snapshot!(known.note(Format::Wide), @"stale: as r2 knows it, up to entry 120; 1.2s after it last heard from the leader");
        insta::assert_snapshot!(known.note(Format::Json), @r#"{"stale":{"replica":"r2","applied_index":120,"age_ms":1230}}"#);
    }
}
