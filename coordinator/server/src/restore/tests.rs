//! Restores on a real folder, each interrupted wherever it may be.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use mainstay_common::{
    Timestamp,
    process::backup::{RecoveryKey, Writer},
};
use mainstay_core::{State, backup as content, token};

use super::*;
use crate::{
    InitConfig,
    audit::{Wanted, read as audit_of},
    identity::{CERTIFICATE_FILE, OPENER_FILE, key_of_files},
    init,
    raft::{
        Alone, Machine, Settings,
        store::{self, Batch, EntryKind, Priority, Store, disk::Folder},
    },
    versions::Versions,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_goes_on_in_place_as_a_new_generation() {
    let lab = Lab::found().await;
    let made = restore(&lab.in_place()).unwrap();
    assert_eq!((made.generation, made.replica.as_str(), made.address.as_str()), (2, "r102", "h:7443"));
    assert_eq!((made.of.generation, made.void_tokens), (1, 1));
    let aside = made.kept_aside.unwrap();
    assert!(aside.join("log/identity").exists() && aside.join(KEY_FILE).exists(), "nothing is destroyed");
    assert_ne!(key_of_files(&lab.dir()), lab.key, "a new replica has a new key");
    assert!(fs::metadata(lab.data.join("admin.context")).is_ok(), "the administrator's context stays");

    let state = lab.run().await;
    assert_eq!(state.cluster.about().generation, 2);
    assert_eq!(state.cluster.replicas().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["r102"]);
    assert_eq!(state.tokens.iter().count(), 2, "what was decided stays, and more can be");
    // The trail goes on: the restore is in it, behind what was there, and nothing lacks.
    let found = audit_of(&lab.data, &Wanted { since: Timestamp(0), actor: String::new(), limit: 100 }).unwrap();
    let actions: Vec<_> = found.lines.iter().map(|line| line.action.as_str()).collect();
    assert!(actions.contains(&"cluster restore") && actions.contains(&"token create"), "{actions:?}");
    assert_eq!(found.lines.iter().filter(|line| line.action == "cluster restore").count(), 1);

    let again = restore(&lab.in_place()).unwrap();
    assert_eq!((again.generation, again.replica.as_str()), (3, "r203"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivors_directory_can_be_restored_into_another_and_stays_as_it_is() {
    let lab = Lab::found().await;
    let folder = tempfile::tempdir().unwrap();
    let into = |data_dir| RestoreConfig { data_dir, ..lab.in_place() };
    let new = folder.path().join("new");
    assert_eq!(look(&into(new.clone())).unwrap(), look(&lab.in_place()).unwrap());
    assert!(!new.exists(), "looking makes nothing");
    // What an interrupted attempt left of the trail goes.
    fs::create_dir_all(new.join("audit")).unwrap();
    fs::write(new.join("audit/half"), "half").unwrap();
    let made = restore(&into(new.clone())).unwrap();
    assert_eq!((made.generation, made.replica.as_str(), made.kept_aside), (2, "r102", None));
    let wanted = Wanted { since: Timestamp(0), actor: String::new(), limit: 100 };
    let actions = |data: &Path| audit_of(data, &wanted).unwrap().lines.into_iter().map(|line| line.action);
    let there: Vec<_> = actions(&new).collect();
    assert!(there.contains(&"token create".into()) && there.contains(&"cluster restore".into()), "{there:?}");
    assert!(!new.join("audit/half").exists());
    assert!(actions(&lab.data).all(|action| action != "cluster restore"));
    assert_eq!(key_of_files(&lab.dir()), lab.key, "the old one is left as it is");
    // The same directory by another name is the same directory.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&lab.data, &link).unwrap();
    assert!(restore(&into(link)).unwrap().kept_aside.is_some());
    let used = restore(&into(new)).unwrap_err();
    assert!(used.code == ExitCode::Conflict && used.try_next.contains("--from-replica"), "{used}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_cut_short_anywhere_is_completed_or_was_none() {
    let lab = Lab::found().await;
    // Each name is moved aside and replaced: as far as each of these steps, and then once more.
    for step in 0..=10 {
        let copy = lab.copy();
        fs::create_dir(copy.data.join("restore.unfinished")).unwrap();
        fs::write(copy.data.join("restore.unfinished/replica.key"), "half").unwrap();
        let decided = decide(&copy);
        assert!(log::refuse_missing(&copy.data).unwrap_err().what.contains("interrupted"));
        assert!(look(&copy.in_place()).unwrap_err().what.contains("interrupted"));
        cut_after(&copy.data, &decided, step);
        let made = restore(&copy.in_place()).unwrap();
        assert_eq!(made, decided, "step {step}");
        assert!(!is_interrupted(&copy.data));
        assert_eq!(log::identity(&copy.dir()).unwrap().generation, 2);
        assert!(copy.data.join("before-restore-2/log/identity").exists());
        assert_eq!(copy.run().await.cluster.about().generation, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_elsewhere_with_its_key_only() {
    let lab = Lab::found().await;
    let state = lab.state().await;
    let folder = tempfile::tempdir().unwrap();
    let (key, other) = (folder.path().join("a.key"), folder.path().join("b.key"));
    let (recovery, _) = (RecoveryKey::make(&key).unwrap(), RecoveryKey::make(&other).unwrap());
    let file = folder.path().join("lab.backup");
    fs::write(&file, lab.backup(&state, Some(&recovery))).unwrap();
    let data = folder.path().join("new");
    let config = |recovery_key: Option<&Path>| RestoreConfig {
        data_dir: data.clone(),
        from: RestoreFrom::File { path: file.clone(), recovery_key: recovery_key.map(Into::into) },
        advertise: Some("new:7443".into()),
        peer_advertise: None,
        generation: None,
        force: false,
    };
    assert!(restore(&config(None)).unwrap_err().why.contains("sealed with a recovery key"));
    assert_eq!(restore(&config(Some(&other))).unwrap_err().code, ExitCode::Denied);
    assert!(!log::holds_cluster(&data));
    let made = restore(&config(Some(&key))).unwrap();
    assert_eq!((made.generation, made.kept_aside), (2, None));
    let restored = Lab { data: data.clone(), key: None, _folder: folder };
    assert_eq!(fs::read(data.join(OPENER_FILE)).unwrap(), fs::read(lab.data.join(OPENER_FILE)).unwrap());
    assert_eq!(restored.run().await.cluster.replicas().next().unwrap().1.address, "new:7443");
    assert_eq!(restore(&config(Some(&key))).unwrap_err().code, ExitCode::Conflict, "what is there is not replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_whole_backup_is_refused_with_its_name() {
    let lab = Lab::found().await;
    let state = lab.state().await;
    let whole = lab.backup(&state, None);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.backup");
    let refused = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let config = RestoreConfig {
            data_dir: folder.path().join("new"),
            from: RestoreFrom::File { path: file.clone(), recovery_key: None },
            ..lab.in_place()
        };
        look(&config).unwrap_err().to_string()
    };
    let cut = refused(&whole[..whole.len() / 2]);
    assert!(cut.contains("lab.backup") && cut.contains("at byte"), "{cut}");
    assert!(refused(b"a letter").contains("no backup"));
    // In an intact file, content that is none.
    let mut writer = Writer::new(Vec::new(), None).unwrap();
    writer.write(b"\x01\0\0\0\x01").unwrap();
    let (foreign, _) = writer.finish().unwrap();
    assert!(refused(&foreign).contains("ends before its end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_only_rise() {
    let lab = Lab::found().await;
    let with = |generation| RestoreConfig { generation: Some(generation), ..lab.in_place() };
    assert_eq!(restore(&with(1)).unwrap_err().code, ExitCode::Usage);
    assert_eq!(restore(&with(7)).unwrap().generation, 7);
    assert_eq!(restore(&lab.in_place()).unwrap().generation, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_lives_is_not_torn_in_two() {
    let lab = Lab::found().await;
    let alive = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut state = (*lab.state().await).clone();
    let move_there = cluster::Command::Advertise(
        "r1".parse().unwrap(),
        "h:7443".into(),
        Some(alive.local_addr().unwrap().to_string()),
        None,
        None,
    );
    state.cluster.apply(now(), &move_there).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.backup");
    fs::write(&file, lab.backup(&state, None)).unwrap();
    let config = |force| RestoreConfig {
        data_dir: folder.path().join("new"),
        from: RestoreFrom::File { path: file.clone(), recovery_key: None },
        advertise: Some("new:7443".into()),
        force,
        ..lab.in_place()
    };
    let refused = restore(&config(false)).unwrap_err();
    assert!(refused.what.contains("not lost") && refused.why.contains("r1 at 127.0.0.1"), "{refused}");
    assert_eq!(restore(&config(true)).unwrap().generation, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_to_be_committed_counts_in_place() {
    let lab = Lab::found().await;
    {
        let disk = Folder::at(lab.data.join("log")).unwrap();
        let (mut store, recovered) = Store::open(disk, Settings::default().store).unwrap();
        let last = recovered.entries.last().unwrap();
        let command = Command::Cluster(cluster::Command::Backup);
        let entry = Entry {
            at: now(),
            actor: Actor::Root,
            from: Origin::Socket,
            request: None,
            command,
            asked: None,
            through: None,
        };
        let (index, term, data) = (last.index + 1, last.term, <State as Machine>::encode(&entry));
        let uncommitted = store::Entry { index, term, kind: EntryKind::Normal, data };
        store.write(&Batch { entries: &[uncommitted], hard_state: None, priority: Priority::Ordinary }).unwrap();
        let remains = look(&lab.in_place()).unwrap();
        assert_eq!((remains.last_index, remains.last_term), (index, term));
    }
    assert!(look(&lab.in_place()).unwrap().until_ms.is_some());
    restore(&lab.in_place()).unwrap();
    assert!(lab.run().await.cluster.about().backed_up_at.is_some());
    let found = audit_of(&lab.data, &Wanted { since: Timestamp(0), actor: String::new(), limit: 100 }).unwrap();
    assert!(found.lines.iter().any(|line| line.action == "cluster backup"), "the audit has it too");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_root_restores_is_the_directorys_owners() {
    let lab = Lab::found().await;
    let (own, other) = (rustix::process::geteuid().as_raw(), 54_321);
    // Only root can give something away; everybody else keeps what is theirs.
    let owner = if own == 0 { other } else { own };
    std::os::unix::fs::chown(&lab.data, Some(owner), None).unwrap();
    restore(&lab.in_place()).unwrap();
    let mut todo: Vec<PathBuf> =
        ["log", "audit", KEY_FILE, CERTIFICATE_FILE, "before-restore-2"].map(|name| lab.data.join(name)).into();
    while let Some(path) = todo.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        assert_eq!(about.uid(), owner, "{}", path.display());
        if about.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

/// As far as the restore is decided, and nothing is in its place.
fn decide(lab: &Lab) -> Restored {
    let away = lab.copy();
    let made = restore(&away.in_place()).unwrap();
    let ready = lab.data.join("restore.ready");
    fs::create_dir(&ready).unwrap();
    for name in [CA_FILE, CERTIFICATE_FILE, KEY_FILE, "joined.toml", "log"] {
        fs::rename(away.data.join(name), ready.join(name)).unwrap();
    }
    let decided = Restored { kept_aside: Some(lab.data.join("before-restore-2")), ..made };
    fs::write(ready.join("restored.json"), serde_json::to_vec(&decided).unwrap()).unwrap();
    fs::write(ready.join("audit.jsonl"), "").unwrap();
    decided
}

/// The first of the steps that `finish` takes, as a power cut would leave them.
fn cut_after(data: &Path, decided: &Restored, steps: usize) {
    let (ready, aside) = (data.join("restore.ready"), decided.kept_aside.as_ref().unwrap());
    let mut left = steps;
    for name in [CA_FILE, CERTIFICATE_FILE, KEY_FILE, "joined.toml", "log"] {
        for (from, to) in [(data.join(name), aside.join(name)), (ready.join(name), data.join(name))] {
            if left == 0 {
                return;
            }
            left -= 1;
            fs::create_dir_all(aside).unwrap();
            if from.exists() {
                fs::rename(from, to).unwrap();
            }
        }
    }
}

/// A cluster's first replica, which does not run.
struct Lab {
    data: PathBuf,
    key: Option<mainstay_core::KeyFingerprint>,
    _folder: tempfile::TempDir,
}

impl Lab {
    /// With a token.
    async fn found() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("c");
        init(&InitConfig {
            data_dir: data.clone(),
            cluster: "lab".into(),
            advertise: "h:7443".into(),
            peer_advertise: Some("127.0.0.1:1".into()),
        })
        .unwrap();
        let mut lab = Self { data, key: None, _folder: folder };
        lab.key = key_of_files(&lab.dir());
        lab.run().await;
        lab
    }

    fn dir(&self) -> DataDir {
        DataDir::take(&self.data).unwrap()
    }

    /// The same directory elsewhere.
    fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("c");
        copy_all(&self.data, &data);
        Self { data, key: self.key, _folder: folder }
    }

    fn in_place(&self) -> RestoreConfig {
        RestoreConfig {
            data_dir: self.data.clone(),
            from: RestoreFrom::Replica(self.data.clone()),
            advertise: None,
            peer_advertise: None,
            generation: None,
            force: false,
        }
    }

    /// Runs its log, makes a token, and ends it again.
    async fn run(&self) -> Arc<State> {
        let dir = self.dir();
        let (log, running) = log::Log::start(&dir, Arc::new(Alone), Versions::default()).unwrap();
        log.leader().wait_for(Option::is_some).await.unwrap();
        let number = log.read().tokens.iter().count();
        let token = token::Token {
            secret_sha256: mainstay_core::KeyFingerprint([7; 32]),
            created_at: now(),
            created_by: "anna".parse().unwrap(),
            expires_at: now().plus(Duration::from_secs(3_600)),
            uses_left: 1,
            admitted: std::collections::BTreeMap::new(),
            revoked_at: None,
            role: None,
        };
        let create = token::Command::Create(format!("t{number}").parse().unwrap(), token);
        log.propose(log.own(Actor::Root), Command::Token(create)).await.unwrap();
        let state = log.read();
        running.end().await;
        // What it must be able to sign with is there.
        let (_, following) = watch::channel(Arc::clone(&state));
        let authority =
            Authority::new(state.cluster.about().id.clone(), following, Opener::read(&dir), Lives::default());
        assert!(authority.opener().is_ok());
        state
    }

    async fn state(&self) -> Arc<State> {
        self.run().await
    }

    fn backup(&self, state: &State, key: Option<&RecoveryKey>) -> Vec<u8> {
        let about = state.cluster.about();
        let opener = content::Secret(Opener::read(&self.dir()).ok().unwrap().bits());
        let (cluster, name, generation) = (about.id.clone(), about.name.clone(), about.generation);
        let head = content::Head { cluster, name, generation, index: 40, term: 3, taken_at: now(), opener };
        let mut writer = Writer::new(Vec::new(), key).unwrap();
        content::frames(&head, state).for_each(|frame| writer.write(&frame).unwrap());
        writer.finish().unwrap().0
    }
}

/// Without a process of its own, which would hold other tests' locks until it runs.
fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy_all(&from, &to) } else { fs::copy(from, to).map(|_| ()).unwrap() }
    }
}
