//! `mainstay cluster`.

mod backup;
mod members;

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use mainstay_common::{Failure, Timestamp, text::Shown};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::{
    args::{Global, WatchArgs, YesArgs},
    connect::{Call, Session},
    output::{Format, json, out, row::rfc3339},
};

use backup::BackupArgs;
use members::{RemoveArgs, TransferArgs};

/// The cluster itself.
#[derive(Subcommand, Debug)]
pub(crate) enum ClusterVerb {
    /// How the replicas stand, as the leader knows it; with --stale, as one replica does
    Status(WatchArgs),
    /// Make a token for one more replica, and print the lines that use it
    Add(YesArgs),
    /// Take a replica out for good; where it leads, another one leads first
    Remove(RemoveArgs),
    /// Have another replica lead
    Transfer(TransferArgs),
    /// Write all of the cluster's state into a file, for when most replicas are lost: mainstay-coordinator restore reads it
    ///
    /// The file holds what opens the key of the cluster's CA. WHOEVER HOLDS IT HOLDS THE CLUSTER, unless a recovery key seals it.
    Backup(BackupArgs),
    /// The CA that everybody's certificates are by
    #[command(subcommand)]
    Ca(CaVerb),
}

/// The CA that everybody's certificates are by.
#[derive(Subcommand, Debug)]
pub(crate) enum CaVerb {
    /// Which roots count, and whom a rotation waits for
    Status,
    /// Begin a rotation of the CA, or take its next step: three steps, and nobody loses their way in
    Rotate(RotateArgs),
}

/// `mainstay cluster ca rotate`
#[derive(Args, Debug)]
pub(crate) struct RotateArgs {
    /// Go one step back; after the last step there is no way back
    #[arg(long)]
    abort: bool,
    /// Do not wait for nodes that have not taken the step before over
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    yes: YesArgs,
}

/// Carries out a verb.
pub(crate) async fn run(verb: ClusterVerb, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    match verb {
        ClusterVerb::Status(watch) => members::status(watch, global, &mut session).await,
        ClusterVerb::Add(_) => members::add(global, &mut session).await,
        ClusterVerb::Remove(args) => members::remove(args, &mut session).await,
        ClusterVerb::Transfer(args) => members::transfer(args, &mut session).await,
        ClusterVerb::Backup(args) => backup::run(args, global, &mut session).await,
        ClusterVerb::Ca(CaVerb::Status) => status(global, &mut session).await,
        ClusterVerb::Ca(CaVerb::Rotate(args)) => rotate(args, global, &mut session).await,
    }?;
    session.close().await;
    Ok(())
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Status {
    phase: String,
    version: u64,
    roots: Vec<Root>,
    missing: Vec<String>,
    missing_users: Vec<String>,
    /// Why the replica that answered can sign nothing.
    closed: Option<String>,
}

#[derive(Serialize)]
struct Root {
    number: u32,
    key: String,
    standing: String,
    #[serde(serialize_with = "rfc3339")]
    made_at: Option<Timestamp>,
    #[serde(serialize_with = "rfc3339")]
    retired_at: Option<Timestamp>,
}

impl From<pb::GetCaResponse> for Status {
    fn from(told: pb::GetCaResponse) -> Self {
        let root = |root: pb::CaRoot| Root {
            number: root.number,
            key: HEXLOWER.encode(&root.key),
            standing: root.standing,
            made_at: Some(Timestamp(root.made_at_ms)),
            retired_at: root.retired_at_ms.map(Timestamp),
        };
        Self {
            phase: told.phase,
            version: told.version,
            roots: told.roots.into_iter().map(root).collect(),
            missing: told.missing,
            missing_users: told.missing_users,
            closed: Some(told.closed).filter(|why| !why.is_empty()),
        }
    }
}

impl Status {
    fn text(&self) -> String {
        let mut text = format!("{:<10}{}\n", "phase", Shown::new(&self.phase));
        for root in &self.roots {
            let date = root.retired_at.or(root.made_at).unwrap_or_default();
            let word = if root.retired_at.is_some() { "since" } else { "made" };
            let standing = Shown::new(&root.standing).to_string();
            text += &format!("{:<10}{standing:<9}{}  {word} {date}\n", format!("root {}", root.number), root.key);
        }
        if self.phase != "settled" {
            text += &format!("{:<10}{}\n", "missing", listed(&self.missing, "no node"));
        }
        if !self.missing_users.is_empty() {
            text += &format!("{:<10}{}\n", "people", listed(&self.missing_users, ""));
        }
        if let Some(why) = &self.closed {
            text += &format!("{:<10}{}\n", "closed", Shown::new(why));
        }
        text
    }
}

fn listed(names: &[String], nobody: &str) -> String {
    if names.is_empty() {
        return nobody.to_owned();
    }
    names.iter().map(|name| Shown::new(name).to_string()).collect::<Vec<_>>().join(", ")
}

async fn ask(session: &mut Session) -> Result<Status, Failure> {
    Ok(session.look(async |mut viewer| viewer.get_ca(pb::GetCaRequest {}).await).await?.into())
}

async fn status(global: &Global, session: &mut Session) -> Result<(), Failure> {
    let status = ask(session).await?;
    out::say(&match global.output {
        Format::Json => json::pretty(&status)?,
        Format::Yaml => json::yaml(&status)?,
        Format::Name => format!("{}\n", Shown::new(&status.phase)),
        Format::Table | Format::Wide => status.text(),
    })?;
    if global.output.is_for_people() {
        out::remark(next(&status.phase));
    }
    Ok(())
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Rotated {
    phase: String,
    version: u64,
    lost: Vec<String>,
}

async fn rotate(args: RotateArgs, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let before = ask(session).await?;
    let question = question(&before, &args, &Shown::new(&session.context().cluster).to_string());
    let flags = [(args.abort, " --abort"), (args.force, " --force")];
    let flags: String = flags.into_iter().filter(|(is, _)| *is).map(|(_, flag)| flag).collect();
    super::confirm(&question, args.yes.yes, &format!("mainstay cluster ca rotate{flags}"))?;
    let request = pb::RotateCaRequest { version: before.version, back: args.abort, force: args.force };
    let call = Call::Changes("mainstay cluster ca status");
    let rotated = session.administer(call, async |mut admin| admin.rotate_ca(request).await).await?;
    // Whoever rotates must not be the first to be shut out.
    if let Err(failure) = session.refresh().await {
        out::remark(&format!("your context is not up to date yet: {}", Shown::new(&failure.why)));
    }
    let rotated = Rotated { phase: rotated.phase, version: rotated.version, lost: rotated.lost };
    out::say(&match global.output {
        Format::Json => json::pretty(&rotated)?,
        Format::Yaml => json::yaml(&rotated)?,
        Format::Name => format!("{}\n", Shown::new(&rotated.phase)),
        Format::Table | Format::Wide => {
            let lost = match &rotated.lost[..] {
                [] => String::new(),
                names => format!("not waited for: {}\n", listed(names, "")),
            };
            format!("the CA is {} now\n{lost}", Shown::new(&rotated.phase))
        }
    })?;
    if global.output.is_for_people() {
        out::remark(next(&rotated.phase));
    }
    Ok(())
}

fn next(phase: &str) -> &'static str {
    match phase {
        "spreading" => {
            "two roots count, and the old one issues; when no node is missing: mainstay cluster ca rotate    (--abort goes back)"
        }
        "replacing" => {
            "the new root issues; when no node is missing, the last step ends the old one: mainstay cluster ca rotate    (--abort goes back)"
        }
        _ => "one root counts: mainstay cluster ca rotate begins a rotation",
    }
}

fn question(before: &Status, args: &RotateArgs, cluster: &str) -> String {
    let step = match (args.abort, before.phase.as_str()) {
        (true, _) => "take the rotation of its CA one step back",
        (false, "settled") => "make a new root and have every node trust it beside the old one",
        (false, "spreading") => "issue from the new root",
        (false, _) => "end the old root for ever",
    };
    let lost = match &before.missing[..] {
        names if args.force && !names.is_empty() => format!(" It does not wait for {}.", listed(names, "")),
        _ => String::new(),
    };
    let people = match &before.missing_users[..] {
        names if !names.is_empty() && !args.abort => {
            format!(" People who need a new context afterwards, as far as is known: {}.", listed(names, ""))
        }
        _ => String::new(),
    };
    format!("cluster {cluster}: {step}?{lost}{people}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_roots_and_whom_it_waits_for() {
        let told = pb::GetCaResponse {
            phase: "replacing".into(),
            version: 9,
            roots: vec![
                pb::CaRoot { number: 1, key: vec![0xab; 4], standing: "trusted".into(), ..pb::CaRoot::default() },
                pb::CaRoot { number: 2, key: vec![0xcd; 4], standing: "issuing".into(), ..pb::CaRoot::default() },
            ],
            missing: vec!["n1".into(), "n2".into()],
            missing_users: vec!["eve".into()],
            closed: String::new(),
        };
        insta::assert_snapshot!(Status::from(told).text(), @r"
        phase     replacing
        root 1    trusted  abababab  made 1970-01-01T00:00:00.000Z
        root 2    issuing  cdcdcdcd  made 1970-01-01T00:00:00.000Z
        missing   n1, n2
        people    eve
        ");
    }

    #[test]
    fn the_question_says_what_cannot_be_undone_and_who_is_lost() {
        let before = Status {
            phase: "replacing".into(),
            version: 9,
            roots: Vec::new(),
            missing: vec!["n1".into()],
            missing_users: vec!["eve".into()],
            closed: None,
        };
        let args = |abort, force| RotateArgs { abort, force, yes: YesArgs { yes: false } };
        let last = question(&before, &args(false, true), "prod");
        assert!(last.contains("end the old root for ever") && last.contains("n1") && last.contains("eve"), "{last}");
        assert!(!question(&before, &args(true, false), "prod").contains("n1"));
    }
}
