//! `mainstay user`.

use std::{
    fs::{self, OpenOptions},
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use mainstay_common::{
    ExitCode, Failure, Timestamp, UserName,
    identity::HumanRole,
    process::{
        context::Context,
        data_dir::unusable,
        now,
        tls::{new_key, signing_request},
    },
    text::Shown,
    time::span,
};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::{
    args::{Global, WatchArgs, YesArgs, complete},
    connect::{Call, Session},
    output::{Format, json, listing::Listing, out, row::rfc3339, rows::UserRow},
};

/// People, and what they may do.
#[derive(Subcommand, Debug)]
pub(crate) enum UserVerb {
    /// Add a person, and write the context file to hand to them
    Add(AddArgs),
    /// List them
    Ls(WatchArgs),
    /// Shut one out, at once
    Revoke {
        /// Their name
        #[arg(add = ArgValueCandidates::new(complete::users))]
        name: String,
        #[command(flatten)]
        yes: YesArgs,
    },
}

/// `mainstay user add`
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// Their name
    name: UserName,
    /// viewer looks, operator acts on what runs, admin does everything
    #[arg(long, value_parser = ["viewer", "operator", "admin"], hide_possible_values = true)]
    role: String,
    /// Where to write their context (0600): addresses, CA, certificate, key
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    _yes: YesArgs,
}

/// Carries out a verb.
pub(crate) async fn run(verb: UserVerb, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    match verb {
        UserVerb::Add(args) => add(args, global, &mut session).await,
        UserVerb::Ls(watch) => ls(watch, global, &mut session).await,
        UserVerb::Revoke { name, yes } => revoke(name, yes, &mut session).await,
    }?;
    session.close().await;
    Ok(())
}

/// A new file that is there before anybody is added: a person whose key could not be written would have the name.
struct Reserved {
    path: PathBuf,
    written: bool,
}

impl Reserved {
    fn new(path: &Path) -> Result<Self, Failure> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(_) => Ok(Self { path: path.to_owned(), written: false }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Failure::new(
                ExitCode::Conflict,
                format!("{} exists already", Shown::new(path.as_os_str().as_encoded_bytes())),
                "it may be somebody's only key",
                "give another --out, or move that file away",
            )),
            Err(error) => {
                let failure = unusable(path, &error);
                Err(Failure { try_next: "give another --out".into(), ..failure })
            }
        }
    }

    fn write(&mut self, context: &Context) -> Result<(), Failure> {
        context.save(&self.path).map_err(|error| unusable(&self.path, &error))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.written {
            // An empty file would be in the way of the next try; nothing else is lost with it.
            fs::remove_file(&self.path).unwrap_or(());
        }
    }
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Added<'a> {
    name: &'a str,
    role: &'a str,
    file: String,
    #[serde(serialize_with = "rfc3339")]
    expires_at: Option<Timestamp>,
}

async fn add(args: AddArgs, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(ExitCode::Failed, "no key was made", why, "report this");
    let role: HumanRole = args.role.parse().map_err(|error| failed(format!("{error}")))?;
    let mut file = Reserved::new(&args.out)?;
    let key = new_key();
    let csr = signing_request(&key).map_err(|error| failed(error.to_string()))?;
    let request = pb::AddUserRequest { name: args.name.to_string(), role: args.role.clone(), csr };
    let call = Call::Hides("mainstay user ls; where the name is there: mainstay user revoke it, and add it again");
    let added = session.administer(call, async |mut admin| admin.add_user(request.clone()).await).await?;
    let odd = |why: String| Failure::new(ExitCode::Failed, "the coordinator's answer does not fit", why, "report this");
    let context = Context {
        cluster: added.cluster,
        cluster_id: added.cluster_id.parse().map_err(|error| odd(format!("{error}")))?,
        addresses: added.addresses,
        user: args.name,
        role,
        ca: added.ca,
        certificate: added.certificate,
        key: key.serialize_pem(),
    };
    file.write(&context)?;
    let expires_at = Timestamp(added.expires_at_ms);
    let (name, file) = (context.user.as_str(), args.out.display().to_string());
    let object = Added { name, role: &args.role, file: file.clone(), expires_at: Some(expires_at) };
    out::say(&match global.output {
        Format::Json => json::pretty(&object)?,
        Format::Yaml => json::yaml(&object)?,
        Format::Name => format!("{name}\n"),
        Format::Table | Format::Wide => format!("{name} added as {role}; the context is in {file}\n"),
    })?;
    if global.output.is_for_people() {
        let life = span(expires_at.since(now()));
        out::remark(&format!(
            "hand the file over secretly; there: mainstay context use {file}    (used once within {life}, it renews itself)"
        ));
    }
    Ok(())
}

async fn ls(watch: WatchArgs, global: &Global, session: &mut Session) -> Result<(), Failure> {
    super::list(watch, global, session, async |session| {
        let call = Call::Looks;
        let answer =
            session.administer(call, async |mut admin| admin.list_users(pb::ListUsersRequest {}).await).await?;
        let rows: Vec<UserRow> = answer.rows.into_iter().map(UserRow::from).collect();
        Ok(Listing::new(rows, "no users: mainstay user add adds one").sorted(()))
    })
    .await
}

async fn revoke(name: String, yes: YesArgs, session: &mut Session) -> Result<(), Failure> {
    let shown = Shown::new(&name).to_string();
    let cluster = Shown::new(&session.context().cluster).to_string();
    let own = if session.context().user.as_str() == name { " That is you." } else { "" };
    let question = format!("shut {shown} out of cluster {cluster}, at once?{own}");
    super::confirm(&question, yes.yes, &format!("mainstay user revoke {shown}"))?;
    let request = pb::RevokeUserRequest { name };
    let call = Call::Changes("mainstay user ls");
    session.administer(call, async |mut admin| admin.revoke_user(request.clone()).await).await?;
    out::say(&format!("{shown} revoked\n"))?;
    out::remark(&format!("to let {shown} in again: mainstay user add {shown} --role ROLE --out FILE"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_stays_and_a_failed_try_leaves_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.context");
        drop(Reserved::new(&path).unwrap());
        assert!(!path.exists());
        fs::write(&path, "somebody's").unwrap();
        assert_eq!(Reserved::new(&path).err().unwrap().code, ExitCode::Conflict);
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    }
}
