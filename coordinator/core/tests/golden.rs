//! What was written once is read for ever: one file per kind of entry, and one per section of a checkpoint.
//!
//! The files are hexadecimal. `MAINSTAY_RECORD=1` adds those that are missing and never touches one that is there: if a
//! test here fails, the format of existing data changed.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use mainstay_common::{ReplicaId, Timestamp, identity::HumanRole, state::Severity};
use mainstay_core::{
    Actor, Command, Entry, Fence, Founding, KeyFingerprint, Origin, State,
    alert::{self, AlertId, Change, End, Episode, Event, Known, Pend, RuleId, Space, Turn, Where},
    backup, ca, cluster, codec, declare, entry, node, notify, token, user,
};

const NOON: Timestamp = Timestamp(1_767_268_800_000);
/// A space of 96 of 100 GiB.
const SPACE: Space = Space { used: 103_079_215_104, available: 4_294_967_296 };

#[test]
fn every_kind_of_entry_reads_as_it_was_written() {
    let entries = entries();
    let kinds: BTreeSet<&str> = entries.iter().map(|(_, entry)| entry.command.kind()).collect();
    assert_eq!(kinds, Command::KINDS.into_iter().collect(), "a kind without a golden file");
    for (name, entry) in entries {
        let file = format!("{}{name}.hex", entry.command.kind().replace(' ', "-"));
        let bytes = golden(&file, &codec::encode(&entry));
        assert_eq!(codec::decode::<Entry>(&bytes), Ok(entry.clone()), "{file} reads as something else");
        assert_eq!(codec::encode(&entry), bytes, "{file} is written otherwise now");
    }
}

#[test]
fn a_named_entry_reads_as_it_was_written() {
    let (_, entry) = entries().remove(1);
    let entry = Entry { asked: Some(0x0123_4567_89ab_cdef), through: Some(parse("r2")), ..entry };
    let bytes = golden("entry-named.hex", &codec::encode(&entry));
    assert_eq!(codec::decode::<Entry>(&bytes), Ok(entry.clone()));
    assert_eq!((codec::encode(&entry), entry.version()), (bytes, 2));
    let record = mainstay_core::audit::Record::of(17, &entry, &Err(node::Rejected::Unknown("n1".into()).into()));
    let bytes = golden("audit-record-through.hex", &codec::encode(&record));
    assert_eq!(codec::decode(&bytes), Ok(record.clone()));
    assert_eq!(codec::encode(&record), bytes);
}

#[test]
fn a_replica_that_says_what_it_knows_reads_as_it_was_written() {
    let mut state = state();
    for command in [
        Command::Token(token::Command::Create(parse("t2"), a_replicas_token())),
        Command::Token(token::Command::Join(newer(join("t2", 5)))),
        Command::Cluster(advertise(Some(2))),
    ] {
        let (actor, from) = (Actor::Root, Origin::Socket);
        let entry = Entry { at: NOON, actor, from, request: None, command, asked: None, through: None };
        state.apply(200, &entry).unwrap();
    }
    let bytes: Vec<u8> =
        state.sections().find(|section| section.name == "replicas").unwrap().pieces.flatten().collect();
    assert_eq!(golden("section-replicas-version.hex", &bytes), bytes, "replicas are written otherwise now");
    let sections = state.sections().map(|section| (section.name, section.pieces.collect::<Vec<_>>()));
    assert_eq!(State::from_sections(sections.collect::<Vec<_>>()), Ok(state));
}

#[test]
fn a_field_that_is_added_later_does_not_keep_an_entry_from_being_read() {
    #[derive(minicbor::Encode)]
    struct Tomorrow {
        #[n(0)]
        at: Timestamp,
        #[n(1)]
        actor: Actor,
        #[n(2)]
        from: Origin,
        #[n(3)]
        request: Option<String>,
        #[n(4)]
        command: Command,
        #[n(5)]
        asked: Option<u64>,
        #[n(6)]
        through: Option<ReplicaId>,
        #[n(9)]
        later: Vec<String>,
    }
    for (_, entry) in entries() {
        let Entry { at, actor, from, request, command, asked, through } = entry.clone();
        let later = vec!["whatever it is".into()];
        let tomorrow = Tomorrow { at, actor, from, request, command, asked, through, later };
        assert_eq!(codec::decode::<Entry>(&codec::encode(&tomorrow)), Ok(entry));
    }
}

/// A kind keeps its version for ever: members that announce a version rely on it.
#[test]
fn every_kind_and_field_is_of_the_version_that_brought_it() {
    let mut versions: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for (name, entry) in entries() {
        let version = entry.version();
        assert!((1..=entry::VERSION).contains(&version), "{name}: {version}");
        versions.entry(entry.command.kind()).or_default().insert(version);
        if !name.ends_with("-version") {
            assert_eq!(version, entry.command.version(), "{} {name}", entry.command.kind());
        }
    }
    let versions = &versions;
    let of_version = |version| Command::KINDS.iter().filter(move |kind| versions[**kind].contains(&version)).copied();
    let lines = |version| of_version(version).map(|kind| format!("{version} {kind}\n")).collect::<String>();
    let now = lines(1) + &lines(2);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/golden/versions.txt");
    if std::env::var_os("MAINSTAY_RECORD").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let known = fs::read_to_string(path).unwrap();
    let of_first =
        |text: &str| text.lines().filter(|line| line.starts_with("1 ")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(of_first(&known).len(), 31, "a released version gets no more kinds");
    assert_eq!(now, known, "record new kinds of the latest version with MAINSTAY_RECORD=1");
}

#[test]
fn an_audit_record_reads_as_it_was_written() {
    let (_, entry) = entries().remove(1);
    let refused = Err(node::Rejected::Unknown("n1".into()).into());
    let record = mainstay_core::audit::Record::of(17, &entry, &refused);
    let bytes = golden("audit-record.hex", &codec::encode(&record));
    assert_eq!(codec::decode(&bytes), Ok(record.clone()));
    assert_eq!(codec::encode(&record), bytes);
}

#[test]
fn a_checkpoint_reads_as_it_was_written() {
    let state = state();
    let mut stored = Vec::new();
    for section in state.sections() {
        let bytes: Vec<u8> = section.pieces.flatten().collect();
        assert!(!bytes.is_empty(), "section {} has no row: the sample tells nothing of it", section.name);
        let file = format!("section-{}.hex", section.name);
        let kept = golden(&file, &bytes);
        assert_eq!(bytes, kept, "{file} is written otherwise now");
        stored.push((section.name, [kept]));
    }
    assert_eq!(State::from_sections(stored), Ok(state));
}

#[test]
fn a_replica_that_joined_reads_as_it_was_written() {
    let mut state = state();
    for command in [
        Command::Token(token::Command::Create(parse("t2"), a_replicas_token())),
        Command::Token(token::Command::Join(join("t2", 4))),
        Command::Token(token::Command::Join(join("t2", 5))),
        Command::Cluster(cluster::Command::Remove(parse("r2"))),
    ] {
        let entry = Entry {
            at: NOON,
            actor: Actor::Root,
            from: Origin::Socket,
            request: None,
            command,
            asked: None,
            through: None,
        };
        state.apply(200, &entry).unwrap();
    }
    for name in ["replicas", "tokens"] {
        let section = state.sections().find(|section| section.name == name).unwrap();
        let bytes: Vec<u8> = section.pieces.flatten().collect();
        assert_eq!(golden(&format!("section-{name}-joined.hex"), &bytes), bytes, "{name} is written otherwise now");
    }
    let sections = state.sections().map(|section| (section.name, section.pieces.collect::<Vec<_>>()));
    assert_eq!(State::from_sections(sections.collect::<Vec<_>>()), Ok(state));
}

#[test]
fn a_restored_cluster_and_a_backup_read_as_they_were_written() {
    let mut state = state();
    for command in [cluster::Command::Backup, cluster::Command::Restore(restore())] {
        let command = Command::Cluster(command);
        let entry = Entry {
            at: NOON,
            actor: Actor::Root,
            from: Origin::Socket,
            request: None,
            command,
            asked: None,
            through: None,
        };
        state.apply(200, &entry).unwrap();
    }
    assert!(state.tokens.iter().all(|(_, token)| token.revoked_at.is_some()), "no token of before counts");
    for name in ["cluster", "replicas", "tokens"] {
        let section = state.sections().find(|section| section.name == name).unwrap();
        let bytes: Vec<u8> = section.pieces.flatten().collect();
        assert_eq!(golden(&format!("section-{name}-restored.hex"), &bytes), bytes, "{name} is written otherwise now");
    }
    let head = backup::Head {
        cluster: parse("c1"),
        name: "prod".into(),
        generation: 2,
        index: 200,
        term: 3,
        taken_at: NOON,
        opener: backup::Secret([8; 32]),
    };
    let content: Vec<u8> = backup::frames(&head, &state).flatten().collect();
    assert_eq!(golden("backup.hex", &content), content, "a backup is written otherwise now");
    assert_eq!(backup::read(&content), Ok((head, state)));
}

#[test]
fn an_entry_of_a_newer_version_is_told_apart_from_garbage() {
    let (_, entry) = entries().remove(0);
    let mut bytes = codec::encode(&entry);
    // The command comes last: noun 0, verb 0 of the cluster. A noun that does not exist yet takes its place.
    let noun = bytes.windows(3).position(|window| window == [0x82, 0x00, 0x81]).unwrap() + 1;
    bytes[noun] = 0x17;
    assert!(matches!(codec::decode::<Entry>(&bytes), Err(mainstay_core::Undecodable::Newer(_))));
    bytes.truncate(noun);
    assert!(matches!(codec::decode::<Entry>(&bytes), Err(mainstay_core::Undecodable::Garbage(_))));
}

/// The bytes of a golden file; what is missing is written when somebody asks for that.
fn golden(file: &str, now: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/golden").join(file);
    if !path.exists() && std::env::var_os("MAINSTAY_RECORD").is_some() {
        let lines: Vec<String> =
            now.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// At least one of each kind; a name behind it where there are several.
fn entries() -> Vec<(&'static str, Entry)> {
    let node = Actor::Agent(parse("n1"));
    let anna = Actor::Human(parse("anna"), HumanRole::Admin);
    let replica = Actor::Replica(parse("r1"));
    let mut entries = vec![
        (
            "",
            replica,
            Command::Cluster(cluster::Command::Advertise(parse("r1"), "10.0.0.1:7443".into(), None, None, None)),
        ),
        ("", anna, Command::Node(node::Command::Label(parse("n1"), [("zone".into(), "a".into())].into()))),
        ("-by-agent", node, Command::Node(node::Command::Label(parse("n1"), BTreeMap::new()))),
        ("", Actor::Root, Command::Node(node::Command::Remove(parse("n1")))),
        ("", Actor::Root, Command::Token(token::Command::Create(parse("t1"), a_token()))),
        ("", Actor::Token(parse("t1")), Command::Token(token::Command::Redeem(redeem()))),
        ("", Actor::Root, Command::Token(token::Command::Revoke(parse("t1")))),
        ("", Actor::Root, Command::User(user::Command::Add(parse("eve"), a_user(None)))),
        ("", Actor::Root, Command::User(user::Command::Revoke(parse("eve")))),
        ("", Actor::Root, Command::User(user::Command::Reissue(parse("eve"), a_user(Some(NOON))))),
        ("", Actor::Root, Command::Notify(notify::Command::Test(parse("ops")))),
        ("", Actor::Root, Command::Declare(declare::Declare { changes: changes(), expecting: 7 })),
        ("-peers", Actor::Replica(parse("r1")), Command::Cluster(advertise(None))),
        ("-version", Actor::Replica(parse("r1")), Command::Cluster(advertise(Some(2)))),
        ("", Actor::Root, Command::Cluster(cluster::Command::Remove(parse("r2")))),
        ("", Actor::Token(parse("t2")), Command::Token(token::Command::Join(join("t2", 4)))),
        ("-version", Actor::Token(parse("t2")), Command::Token(token::Command::Join(newer(join("t2", 4))))),
        ("", Actor::Human(parse("anna"), HumanRole::Admin), Command::Cluster(cluster::Command::Backup)),
        ("", Actor::Root, Command::Cluster(cluster::Command::Restore(restore()))),
        ("-replica", Actor::Root, Command::Token(token::Command::Create(parse("t2"), a_replicas_token()))),
    ];
    entries.extend(about_alerts().into_iter().map(|(name, command)| (name, Actor::Leader, Command::Alert(command))));
    entries.extend(about_roots().into_iter().map(|command| ("", Actor::Root, Command::Ca(command))));
    let again = |retry_after| notify::Again { reason: "503".into(), retry_after };
    for (name, command) in [
        ("", notify::Command::Claim(claim())),
        ("", notify::Command::Delivered(claim())),
        ("", notify::Command::Again(claim(), again(None))),
        ("-later", notify::Command::Again(claim(), again(Some(Duration::from_secs(120))))),
        ("", notify::Command::GiveUp(claim(), "404".into())),
    ] {
        entries.push((name, Actor::Leader, Command::Notify(command)));
    }
    let origin = |actor: &Actor| match actor {
        Actor::Leader | Actor::Replica(_) => Origin::Replica(parse("r1")),
        Actor::Root => Origin::Socket,
        Actor::Human(..) | Actor::Agent(_) | Actor::Token(_) => Origin::Peer("10.0.0.9:50000".into()),
    };
    let entry = |(name, actor, command)| {
        let request = matches!(actor, Actor::Human(..)).then(|| "deploy-17".to_owned());
        (name, Entry { at: NOON, from: origin(&actor), actor, request, command, asked: None, through: None })
    };
    entries.into_iter().map(entry).collect()
}

fn about_roots() -> Vec<ca::Command> {
    use ca::Command as C;
    let step = |force| ca::Step { version: 7, force };
    vec![
        C::Adopt(root(1)),
        C::Begin(7, root(2)),
        C::Issue(step(false)),
        C::Finish(step(true)),
        C::Back(step(false)),
        C::Acknowledge(vec![ca::Holder::Node(parse("n1")), ca::Holder::User(parse("eve"))], 7),
    ]
}

fn root(key: u8) -> ca::NewRoot {
    let sealed = ca::Sealed { nonce: [key; 12], ciphertext: vec![key; 5], opener: KeyFingerprint([9; 32]) };
    let cross = (key > 1).then(|| "cross".to_owned());
    ca::NewRoot { certificate: format!("root {key}"), key: KeyFingerprint([key; 32]), sealed, cross }
}

fn about_alerts() -> Vec<(&'static str, alert::Command)> {
    use alert::Command as C;
    let turn = |turn, space| C::Turn(episode(), turn, space);
    vec![
        ("", C::Pend(Pend { alert: id(), severity: Severity::Critical, space: SPACE })),
        ("", C::Fire(episode(), Severity::Warning, SPACE)),
        ("", C::Escalate(episode(), SPACE)),
        ("", C::Resolve(episode(), End::Cleared, Some(SPACE))),
        ("-gone", C::Resolve(episode(), End::Gone, None)),
        ("", C::Drop(episode(), End::NodeRemoved)),
        ("", turn(Turn::Critical, Some(SPACE))),
        ("-warning", turn(Turn::Warning, Some(SPACE))),
        ("-clear", turn(Turn::Clear, None)),
        ("-back", turn(Turn::Back, None)),
        ("", C::Unknown(episode())),
        ("", C::Known(episode(), Known { critical: true, space: Some(SPACE) })),
    ]
}

fn id() -> AlertId {
    AlertId { node: parse("n1"), rule: RuleId::FsSpace, target: b"/data/\xff".to_vec() }
}

fn episode() -> Episode {
    Episode { alert: id(), since: NOON, step: 3 }
}

fn claim() -> notify::Claim {
    let subject = notify::Subject::Alert(id());
    let id = notify::DeliveryId { receiver: parse("ops"), subject, since: NOON, event: Event::Escalated };
    notify::Claim { id, fence: Fence { generation: 1, term: 5 }, attempt: 2 }
}

fn a_token() -> token::Token {
    token::Token {
        secret_sha256: KeyFingerprint([7; 32]),
        created_at: NOON,
        created_by: parse("anna"),
        expires_at: NOON.plus(Duration::from_secs(3_600)),
        uses_left: 2,
        admitted: [(KeyFingerprint([1; 32]), parse("n1"))].into(),
        revoked_at: None,
        role: None,
    }
}

fn a_replicas_token() -> token::Token {
    token::Token { admitted: BTreeMap::new(), role: Some(token::Role::Replica), ..a_token() }
}

fn join(token: &str, key: u8) -> token::Join {
    token::Join {
        token: parse(token),
        secret_sha256: KeyFingerprint([7; 32]),
        key: KeyFingerprint([key; 32]),
        address: format!("10.0.0.{key}:7443"),
        peer_address: format!("10.0.0.{key}:7444"),
        version: None,
    }
}

fn newer(join: token::Join) -> token::Join {
    token::Join { version: Some(2), ..join }
}

fn advertise(version: Option<u32>) -> cluster::Command {
    let (peers, key) = (Some("10.0.0.1:7444".into()), Some(KeyFingerprint([4; 32])));
    cluster::Command::Advertise(parse("r1"), "10.0.0.1:7443".into(), peers, key, version)
}

fn restore() -> cluster::Restore {
    cluster::Restore {
        generation: 2,
        address: "10.0.0.1:7443".into(),
        peer_address: "10.0.0.1:7444".into(),
        key: KeyFingerprint([6; 32]),
    }
}

fn redeem() -> token::Redeem {
    token::Redeem {
        token: parse("t1"),
        secret_sha256: KeyFingerprint([7; 32]),
        key: KeyFingerprint([2; 32]),
        node: parse("n2"),
    }
}

fn a_user(revoked_at: Option<Timestamp>) -> user::User {
    let (role, key) = (HumanRole::Operator, KeyFingerprint([3; 32]));
    user::User { role, key, added_at: NOON, added_by: parse("anna"), revoked_at }
}

fn changes() -> Vec<declare::Change> {
    let url = notify::Address::Url("https://chat.example/hook".into());
    let file = notify::Address::File("/etc/mainstay/hook".into());
    let webhook =
        |address, allow_private_address| notify::Receiver::Webhook(notify::Webhook { address, allow_private_address });
    let matcher = notify::Matcher {
        severity: Some(Severity::Critical),
        rule: Some(parse("fs.*")),
        node: Some(parse("db*")),
        mount: Some(parse("/data")),
    };
    let change = Change {
        warning: Some(parse("10% and 100GiB, or 1GiB of more than 8GiB")),
        critical: Some(parse("20GiB")),
        hold: Some(Duration::from_secs(600)),
        critical_hold: None,
        clear_margin: Some(parse("2.5%")),
        clear_hold: Some(Duration::from_millis(1_500)),
    };
    let place = Where { node: Some(parse("db*")), mount: None };
    vec![
        declare::Change::Receiver(parse("ops"), Some(webhook(url, false))),
        declare::Change::Receiver(parse("dev"), Some(webhook(file, true))),
        declare::Change::Route(matcher.clone(), Some([parse("ops")].into())),
        declare::Change::Rule(RuleId::FsSpace, place, Some(change)),
        declare::Change::Receiver(parse("old"), None),
        declare::Change::Route(notify::Matcher::default(), None),
        declare::Change::Rule(RuleId::FsSpace, Where::default(), None),
    ]
}

/// A state with a row in every table.
fn state() -> State {
    let mut state = State::founded(Founding {
        id: parse("c1"),
        name: "prod".into(),
        replica: parse("r1"),
        address: "10.0.0.1:7443".into(),
    });
    let mut index = 1;
    let mut apply = |command: Command| {
        index += 1;
        // An answer of each kind is kept.
        let request = Some(format!("q{index}"));
        let entry =
            Entry { at: NOON, actor: Actor::Root, from: Origin::Socket, request, command, asked: None, through: None };
        state.apply(index, &entry).unwrap();
    };
    apply(Command::Token(token::Command::Create(parse("t1"), token::Token { admitted: BTreeMap::new(), ..a_token() })));
    apply(Command::Token(token::Command::Redeem(token::Redeem { node: parse("n1"), ..redeem() })));
    apply(Command::User(user::Command::Add(parse("eve"), a_user(None))));
    let mut declared = changes();
    // The routes would lead away from this alert.
    declared.remove(2);
    apply(Command::Declare(declare::Declare { changes: declared, expecting: 0 }));
    let any = notify::Matcher { node: Some(parse("n*")), ..notify::Matcher::default() };
    let route = declare::Change::Route(any, Some([parse("ops")].into()));
    apply(Command::Declare(declare::Declare { changes: vec![route], expecting: 5 }));
    let step = |step| Episode { step, ..episode() };
    apply(Command::Alert(alert::Command::Pend(Pend { alert: id(), severity: Severity::Critical, space: SPACE })));
    apply(Command::Alert(alert::Command::Fire(step(0), Severity::Warning, SPACE)));
    apply(Command::Alert(alert::Command::Resolve(step(1), End::Cleared, None)));
    let other = AlertId { target: b"/".to_vec(), ..id() };
    let pend = Pend { alert: other.clone(), severity: Severity::Warning, space: SPACE };
    apply(Command::Alert(alert::Command::Pend(pend)));
    apply(Command::Alert(alert::Command::Fire(Episode { alert: other, ..step(0) }, Severity::Warning, SPACE)));
    let mut claim = notify::Claim { attempt: 1, ..claim() };
    claim.id.event = Event::Fired;
    apply(Command::Notify(notify::Command::Claim(claim.clone())));
    apply(Command::Notify(notify::Command::Delivered(claim)));
    take(&mut state, index + 1, ca::Command::Adopt(root(1)));
    let version = |state: &State| state.ca.version();
    let next = |state: &State| version(state) + 100;
    for key in [2, 3] {
        let begin = ca::Command::Begin(version(&state), root(key));
        let index = next(&state);
        take(&mut state, index, begin);
        let forced = |state: &State| ca::Step { version: version(state), force: true };
        let issue = ca::Command::Issue(forced(&state));
        let index = next(&state);
        take(&mut state, index, issue);
        if key == 2 {
            let finish = ca::Command::Finish(forced(&state));
            let index = next(&state);
            take(&mut state, index, finish);
        }
    }
    let holders = vec![ca::Holder::Node(parse("n1")), ca::Holder::User(parse("eve"))];
    let acknowledge = ca::Command::Acknowledge(holders, version(&state));
    let index = next(&state);
    take(&mut state, index, acknowledge);
    state
}

/// Applies what is about roots, which nobody asked for under a name of their own.
fn take(state: &mut State, index: u64, command: ca::Command) {
    let entry = Entry {
        at: NOON,
        actor: Actor::Root,
        from: Origin::Socket,
        request: None,
        command: Command::Ca(command),
        asked: None,
        through: None,
    };
    state.apply(index, &entry).unwrap();
}
