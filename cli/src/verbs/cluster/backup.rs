//! `mainstay cluster backup`: what brings the cluster back when most of its replicas are lost.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use data_encoding::HEXLOWER;
use mainstay_common::{
    ExitCode, Failure, Timestamp,
    process::{
        backup::{RecoveryKey, Writer, Written, read},
        data_dir::unusable,
        random,
    },
    text::Shown,
};
use mainstay_proto::v1 as pb;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;
use tokio::time::timeout;
use tonic::Streaming;

use crate::{
    args::{Global, YesArgs},
    connect::{Call, Session, failure},
    output::{Format, json, out, row::rfc3339},
};

/// Longest wait for the next piece.
const PIECE: Duration = Duration::from_secs(30);
/// Standard output.
const STDOUT: &str = "-";

/// `mainstay cluster backup`
#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// Where to write it (0600); - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Seal it with the key in this file
    #[arg(long, value_name = "FILE")]
    recovery_key_file: Option<PathBuf>,
    /// Make a key, write it into this file (0600), and seal the backup with it
    #[arg(long, value_name = "FILE", conflicts_with = "recovery_key_file")]
    new_recovery_key: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    _yes: YesArgs,
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Made {
    file: String,
    bytes: u64,
    sha256: String,
    sealed: bool,
    cluster: String,
    cluster_id: String,
    generation: u64,
    term: u64,
    index: u64,
    #[serde(serialize_with = "rfc3339")]
    taken_at: Option<Timestamp>,
    replica: String,
}

/// A file that is there whole, or not at all.
struct Fresh<'a> {
    path: &'a Path,
    unfinished: PathBuf,
    force: bool,
}

impl<'a> Fresh<'a> {
    fn begin(path: &'a Path, force: bool) -> Result<(Self, File), Failure> {
        if path.exists() && !force {
            return Err(taken(path));
        }
        let name = path.file_name().ok_or_else(|| unusable(path, &io::ErrorKind::InvalidInput.into()))?;
        let unfinished = path.with_file_name(format!(".{}.{:08x}.new", name.display(), u32::from_ne_bytes(random())));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unfinished);
        let file = file.map_err(|error| elsewhere(path, &error))?;
        Ok((Self { path, unfinished, force }, file))
    }

    /// On disk under its name; what is read back from there is what was written.
    fn finish(self, file: &File, key: Option<&RecoveryKey>) -> Result<(), Failure> {
        file.sync_all().map_err(|error| elsewhere(self.path, &error))?;
        let there = fs::read(&self.unfinished).map_err(|error| elsewhere(self.path, &error))?;
        read(&there, key).map_err(|why| why.failure(self.path))?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let renamed = self.rename().and_then(|()| File::open(folder)?.sync_all());
        renamed.map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists { taken(self.path) } else { elsewhere(self.path, &error) }
        })
    }

    fn rename(&self) -> io::Result<()> {
        if self.force {
            return fs::rename(&self.unfinished, self.path);
        }
        match renameat_with(CWD, &self.unfinished, CWD, self.path, RenameFlags::NOREPLACE) {
            // Not every filesystem knows how; whether it is there was looked at.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::rename(&self.unfinished, self.path),
            renamed => Ok(renamed?),
        }
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        // It has its name already, or is of no use.
        fs::remove_file(&self.unfinished).unwrap_or(());
    }
}

fn taken(path: &Path) -> Failure {
    let what = format!("{} exists already", Shown::new(path.as_os_str().as_encoded_bytes()));
    Failure::new(ExitCode::Conflict, what, "it may be the only backup", "give another name, or --force")
}

fn elsewhere(path: &Path, error: &io::Error) -> Failure {
    Failure { try_next: "make room there, or give another FILE".into(), ..unusable(path, error) }
}

pub(super) async fn run(args: BackupArgs, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let to_stdout = args.file == Path::new(STDOUT);
    if to_stdout && io::stdout().is_terminal() {
        let why = "a backup is no text, and whoever sees it holds the cluster";
        return Err(Failure::new(ExitCode::Usage, "standard output is a terminal", why, "give a FILE, or a pipe"));
    }
    // Whatever refuses it comes before a key is made that nobody needs.
    let mut fresh = if to_stdout { None } else { Some(Fresh::begin(&args.file, args.force)?) };
    let key = match (&args.recovery_key_file, &args.new_recovery_key) {
        (Some(file), _) => Some(RecoveryKey::read(file)?),
        (None, Some(file)) => Some(RecoveryKey::make(file)?),
        (None, None) => None,
    };
    // Nothing is lost with an answer: another backup is as good.
    let pieces = session.administer(Call::Looks, async |mut admin| admin.backup(pb::BackupRequest {}).await).await?;
    let (head, written) = match fresh.take() {
        None => {
            let (_, head, written) = gather(pieces, io::stdout(), key.as_ref(), &args.file).await?;
            (head, written)
        }
        Some((fresh, file)) => {
            let (file, head, written) = gather(pieces, file, key.as_ref(), &args.file).await?;
            fresh.finish(&file, key.as_ref())?;
            (head, written)
        }
    };
    let made = Made {
        file: Shown::new(args.file.as_os_str().as_encoded_bytes()).to_string(),
        bytes: written.bytes,
        sha256: HEXLOWER.encode(&written.sha256),
        sealed: key.is_some(),
        cluster: head.cluster,
        cluster_id: head.cluster_id,
        generation: head.generation,
        term: head.term,
        index: head.index,
        taken_at: Some(Timestamp(head.taken_at_ms)),
        replica: head.replica,
    };
    tell(&made, to_stdout, global)?;
    out::remark(&warning(&made, args.new_recovery_key.as_deref()));
    Ok(())
}

fn tell(made: &Made, to_stdout: bool, global: &Global) -> Result<(), Failure> {
    let text = match global.output {
        Format::Json => json::pretty(made)?,
        Format::Yaml => json::yaml(made)?,
        Format::Name => format!("{}\n", made.file),
        Format::Table | Format::Wide => format!(
            "cluster {} as of {} is in {}: {} bytes, generation {}, term {}, index {}\n",
            Shown::new(&made.cluster),
            made.taken_at.unwrap_or_default(),
            made.file,
            made.bytes,
            made.generation,
            made.term,
            made.index,
        ),
    };
    if to_stdout {
        out::remark(text.trim_end());
        return Ok(());
    }
    out::say(&text)
}

/// What it is, in words that nobody overlooks.
fn warning(made: &Made, new_key: Option<&Path>) -> String {
    let cluster = Shown::new(&made.cluster);
    let key = |path: &Path| Shown::new(path.as_os_str().as_encoded_bytes()).to_string();
    match (made.sealed, new_key) {
        (false, _) => format!(
            "WARNING: this file holds the key of the cluster's CA in the open. WHOEVER HOLDS IT HOLDS CLUSTER {cluster}: keep \
             it as you keep root's password, or seal it: --new-recovery-key FILE"
        ),
        (true, Some(path)) => format!(
            "WARNING: {} alone opens this file, and whoever holds both holds cluster {cluster}. Keep the key in another place \
             than the backups: without it they are of no use",
            key(path)
        ),
        (true, None) => {
            format!("whoever holds this file and its recovery key holds cluster {cluster}: keep them apart")
        }
    }
}

/// Writes what comes, until it is whole.
async fn gather<W: Write>(
    mut pieces: Streaming<pb::BackupPiece>,
    out: W,
    key: Option<&RecoveryKey>,
    path: &Path,
) -> Result<(W, pb::BackupHead, Written), Failure> {
    let cut = |why: &str| {
        let try_next = "mainstay cluster backup again";
        Failure::new(ExitCode::Failed, "the backup is not whole, and was thrown away", why, try_next)
    };
    let mut writer = Writer::new(out, key).map_err(|error| elsewhere(path, &error))?;
    let mut head = None;
    loop {
        let next = timeout(PIECE, pieces.message()).await.map_err(|_| cut("nothing came any more"))?;
        let piece = next.map_err(|status| cut(&failure::from_status(&status, Call::Looks).why))?;
        let piece = piece.ok_or_else(|| cut("the coordinator ended it too soon"))?;
        head = head.or(piece.head);
        writer.write(&piece.data).map_err(|error| elsewhere(path, &error))?;
        if piece.last {
            break;
        }
    }
    let head = head.ok_or_else(|| cut("it does not say what it is of"))?;
    let (out, written) = writer.finish().map_err(|error| elsewhere(path, &error))?;
    Ok((out, head, written))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all_and_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab.backup");
        let written = |force| {
            let (fresh, file) = Fresh::begin(&path, force)?;
            assert!(force || !path.exists(), "it has its name when it is whole");
            let (file, _) = Writer::new(file, None).and_then(Writer::finish).unwrap();
            fresh.finish(&file, None)
        };
        drop(Fresh::begin(&path, false).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "what is given up leaves nothing");
        written(false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(written(false).unwrap_err().code, ExitCode::Conflict);
        written(true).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_that_came_while_it_was_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab.backup");
        let (fresh, file) = Fresh::begin(&path, false).unwrap();
        let (file, _) = Writer::new(file, None).and_then(Writer::finish).unwrap();
        fs::write(&path, "somebody's").unwrap();
        assert_eq!(fresh.finish(&file, None).unwrap_err().code, ExitCode::Conflict);
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    }
}
