//! Every method × every role × every bad certificate, against one table.

use std::{collections::BTreeMap, path::PathBuf};

use mainstay_common::process::tls::{Credentials, new_key};
use mainstay_tests::{
    Cluster,
    caller::{Answer, Caller, call, of_context, of_folder},
    eventually,
    forger::{Forger, Form},
    metrics,
    wait::holds,
};
use prost::Message as _;
use rcgen::ExtendedKeyUsagePurpose;
use tonic::Code;

/// Who may call what. Whoever shows a certificate that counts may also do what nobody in particular may.
const TABLE: &str = "
                                                          nobody agent viewer operator admin replica
mainstay.v1.Enrol/Redeem                                  yes    yes   yes    yes      yes   yes
mainstay.v1.Enrol/Reenrol                                 yes    yes   yes    yes      yes   yes
mainstay.v1.Enrol/Join                                    yes    yes   yes    yes      yes   yes
mainstay.v1.Agent/Session                                 -      yes   -      -        -     -
mainstay.v1.Agent/Renew                                   -      yes   -      -        -     -
mainstay.v1.Viewer/GetStatus                              -      -     yes    yes      yes   -
mainstay.v1.Viewer/ListNodes                              -      -     yes    yes      yes   -
mainstay.v1.Viewer/GetNode                                -      -     yes    yes      yes   -
mainstay.v1.Viewer/ListDisks                              -      -     yes    yes      yes   -
mainstay.v1.Viewer/ListMounts                             -      -     yes    yes      yes   -
mainstay.v1.Viewer/ListVolumes                            -      -     yes    yes      yes   -
mainstay.v1.Viewer/ListContainers                         -      -     yes    yes      yes   -
mainstay.v1.Viewer/ListAlerts                             -      -     yes    yes      yes   -
mainstay.v1.Viewer/GetAlert                               -      -     yes    yes      yes   -
mainstay.v1.Viewer/ListRules                              -      -     yes    yes      yes   -
mainstay.v1.Viewer/ListReceivers                          -      -     yes    yes      yes   -
mainstay.v1.Viewer/GetDelivery                            -      -     yes    yes      yes   -
mainstay.v1.Viewer/ListAudit                              -      -     yes    yes      yes   -
mainstay.v1.Viewer/GetCa                                  -      -     yes    yes      yes   -
mainstay.v1.Viewer/GetCluster                             -      -     yes    yes      yes   -
mainstay.v1.Viewer/GetContext                             -      -     yes    yes      yes   -
mainstay.v1.Viewer/Renew                                  -      -     yes    yes      yes   -
mainstay.v1.Operator/LabelNode                            -      -     -      yes      yes   -
mainstay.v1.Operator/TestReceiver                         -      -     -      yes      yes   -
mainstay.v1.Admin/CreateToken                             -      -     -      -        yes   -
mainstay.v1.Admin/ListTokens                              -      -     -      -        yes   -
mainstay.v1.Admin/RevokeToken                             -      -     -      -        yes   -
mainstay.v1.Admin/AddUser                                 -      -     -      -        yes   -
mainstay.v1.Admin/ListUsers                               -      -     -      -        yes   -
mainstay.v1.Admin/RevokeUser                              -      -     -      -        yes   -
mainstay.v1.Admin/RemoveNode                              -      -     -      -        yes   -
mainstay.v1.Admin/Declare                                 -      -     -      -        yes   -
mainstay.v1.Admin/RotateCa                                -      -     -      -        yes   -
mainstay.v1.Admin/RemoveReplica                           -      -     -      -        yes   -
mainstay.v1.Admin/TransferLeadership                      -      -     -      -        yes   -
mainstay.v1.Admin/Backup                                   -      -     -      -        yes   -
mainstay.v1.Replica/Announce                              -      -     -      -        -     yes
mainstay.v1.Replica/Talk                                  -      -     -      -        -     yes
mainstay.v1.Replica/FetchCheckpoint                       -      -     -      -        -     yes
mainstay.v1.Replica/FetchOpener                           -      -     -      -        -     yes
mainstay.v1.Replica/Reissue                               -      -     -      -        -     yes
grpc.health.v1.Health/Check                               yes    yes   yes    yes      yes   yes
grpc.reflection.v1.ServerReflection/ServerReflectionInfo  -      yes   yes    yes      yes   -
";

#[test]
fn every_method_has_its_row_and_every_row_its_method() {
    let files = prost_types::FileDescriptorSet::decode(mainstay_proto::DESCRIPTOR).unwrap();
    let services = files.file.iter().flat_map(|file| file.service.iter().map(move |service| (file, service)));
    let methods = services.flat_map(|(file, service)| {
        service.method.iter().map(|method| format!("{}.{}/{}", file.package(), service.name(), method.name()))
    });
    let mut methods: Vec<String> = methods.collect();
    methods.sort_unstable();
    let (_, rows) = table();
    let mut rows: Vec<_> = rows.into_keys().filter(|path| path.starts_with("mainstay.")).collect();
    rows.sort_unstable();
    assert_eq!(rows, methods);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_gets_exactly_what_the_table_says() {
    let lab = Lab::found();
    let (roles, rows) = table();
    let mut wrong = Vec::new();
    for (column, role) in roles.iter().enumerate() {
        let caller = lab.caller(lab.people.get(*role));
        let channel = caller.channel().await.unwrap();
        let among_replicas = caller.at(&lab.cluster.peers).channel().await.unwrap();
        for (path, allowed) in &rows {
            let channel = if is_among_replicas(path) { &among_replicas } else { &channel };
            let answer = call(channel.clone(), &format!("/{path}")).await;
            let refused = match (*role, path.as_str()) {
                ("nobody", _) => Code::Unauthenticated,
                _ => Code::PermissionDenied,
            };
            let expected = if allowed[column] { Answer::Passed } else { Answer::Refused(refused) };
            // Whoever is no replica has no room on their port: cut, if not refused.
            let cut = is_among_replicas(path) && answer == Answer::NoConnection;
            if answer != expected && (allowed[column] || !cut) {
                wrong.push(format!("{role} -> {path}: {answer:?}, not {expected:?}"));
            }
        }
        for unknown in ["/mainstay.v1.Replicas/Append", "/mainstay.v1.Admins/CreateToken", "/x/y"] {
            assert_eq!(call(channel.clone(), unknown).await, Answer::Refused(Code::Unimplemented), "{role}: {unknown}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// How long a refusal may take to be counted.
const COUNTED: std::time::Duration = std::time::Duration::from_secs(5);

/// What a bad certificate meets.
enum Meets {
    /// No connection comes about; `/metrics` counts the reason.
    TheDoor(&'static str),
    /// A connection, and this answer to whatever is not for everybody.
    TheGate(Code),
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bad_certificate_gets_anywhere() {
    use Meets::{TheDoor, TheGate};
    let mut lab = Lab::found();
    let cluster = lab.forger.cluster.to_string();
    let uri = |rest: &str| format!("spiffe://{cluster}/{rest}");
    let agent_key = lab.people["agent"].key.clone();
    let operator_key = lab.people["operator"].key.clone();
    let good = Form::of(&[&uri("agent/n1")]);
    let of = |uris: &[&str]| lab.forger.sign(&Form::of(uris), &agent_key);
    let late = Form { hours: (-48, -1), ..good.clone() };
    let early = Form { hours: (24, 48), ..good.clone() };
    let server_only = Form { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..good.clone() };
    let bad = [
        ("of another CA with the same name", lab.forger.namesake().sign(&good, &agent_key), TheDoor("other_ca")),
        ("expired", lab.forger.sign(&late, &agent_key), TheDoor("expired")),
        ("not valid yet", lab.forger.sign(&early, &agent_key), TheDoor("not_yet_valid")),
        ("for servers only", lab.forger.sign(&server_only, &agent_key), TheDoor("identity")),
        ("with two names", of(&[&uri("agent/n1"), &uri("admin/admin")]), TheDoor("identity")),
        ("with no name", of(&[]), TheDoor("identity")),
        ("of a foreign trust domain", of(&["spiffe://elsewhere/agent/n1"]), TheDoor("identity")),
        ("with a way up in its path", of(&[&uri("agent/a/../operator")]), TheDoor("identity")),
        ("with an escape", of(&[&uri("agent/n%31")]), TheDoor("identity")),
        ("with a space", of(&[&uri("agent/n 1")]), TheDoor("identity")),
        ("with a line break", of(&[&uri("agent/n1\n")]), TheDoor("identity")),
        ("with a trailing slash", of(&[&uri("agent/n1/")]), TheDoor("identity")),
        ("with a query", of(&[&uri("agent/n1?role=admin")]), TheDoor("identity")),
        ("of a role nobody has", of(&[&uri("root/n1")]), TheDoor("identity")),
        ("in capitals", of(&[&uri("agent/n1").replace("spiffe", "SPIFFE")]), TheDoor("identity")),
        ("of a higher role than its key has", of(&[&uri("operator/n1")]), TheGate(Code::Unauthenticated)),
        (
            "of a higher role than the person has",
            lab.forger.sign(&Form::of(&[&uri("admin/oscar")]), &operator_key),
            TheGate(Code::Unauthenticated),
        ),
        ("of a replica, with an agent's key", of(&[&uri("replica/r1")]), TheGate(Code::PermissionDenied)),
        ("of an agent that nobody enrolled", of(&[&uri("agent/ghost")]), TheGate(Code::Unavailable)),
        (
            "of a known agent with another key",
            lab.forger.sign(&good, &new_key().serialize_pem()),
            TheGate(Code::PermissionDenied),
        ),
    ];
    let (_, rows) = table();
    for (what, credentials, meets) in &bad {
        let caller = lab.caller(Some(credentials));
        let counted = |reason| format!("mainstay_coordinator_refusals_total{{reason=\"{reason}\"}}");
        let before =
            if let TheDoor(reason) = meets { metrics::value(&lab.cluster.http, &counted(reason)) } else { 0.0 };
        for (path, allowed) in &rows {
            let caller = if is_among_replicas(path) { &caller.at(&lab.cluster.peers) } else { &caller };
            let answer = caller.call_anew(&format!("/{path}")).await;
            let expected = match meets {
                TheDoor(_) => Answer::NoConnection,
                // What nobody in particular may do needs no certificate, whatever it says.
                TheGate(_) if allowed[0] => Answer::Passed,
                TheGate(code) => Answer::Refused(*code),
            };
            let cut = is_among_replicas(path) && answer == Answer::NoConnection;
            assert!(answer == expected || cut, "a certificate {what} -> {path}: {answer:?}, not {expected:?}");
        }
        if let TheDoor(reason) = meets {
            #[expect(clippy::cast_precision_loss, reason = "a handful")]
            let calls = rows.len() as f64;
            // The peer may hear of a refusal before it is counted.
            eventually(&format!("{what}: {calls} refusals are counted as {reason}"), COUNTED, || {
                let count = metrics::value(&lab.cluster.http, &counted(reason)) - before;
                holds((count - calls).abs() < 0.5, || format!("{count} are"))
            });
        }
    }
    // Both clocks are named where they do not fit.
    for words in ["the certificate counts from ", "the certificate ran out at "] {
        let line = lab.cluster.coordinator().says(words, std::time::Duration::from_secs(5));
        assert!(line.contains("; this replica's clock: 20"), "{line}");
    }
    println!("{} certificates x {} methods", bad.len(), rows.len());
}

/// Replicas speak to each other on a port of their own.
fn is_among_replicas(path: &str) -> bool {
    path.starts_with("mainstay.v1.Replica/")
}

/// Roles by column, and for each method whether they may.
fn table() -> (Vec<&'static str>, BTreeMap<String, Vec<bool>>) {
    let mut lines =
        TABLE.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|line| !line.is_empty());
    let roles = lines.next().unwrap();
    let rows: BTreeMap<_, Vec<_>> =
        lines.map(|line| (line[0].to_owned(), line[1..].iter().map(|cell| *cell == "yes").collect())).collect();
    assert!(rows.values().all(|cells| cells.len() == roles.len()), "a cell lacks");
    (roles, rows)
}

/// A cluster with somebody of every role.
struct Lab {
    cluster: Cluster,
    forger: Forger,
    people: BTreeMap<&'static str, Credentials>,
}

impl Lab {
    fn found() -> Self {
        let cluster = Cluster::found();
        let forger = Forger::of(&cluster);
        cluster.enroll("n1");
        let person = |name: &str, role: &str| {
            let file: PathBuf = cluster.folder().join(format!("{name}.context"));
            cluster.mainstay(&["user", "add", name, "--role", role, "--out", file.to_str().unwrap()]).done();
            of_context(&file)
        };
        let people = BTreeMap::from([
            ("agent", of_folder(&cluster.agent_folder("n1"), "agent")),
            ("viewer", person("vera", "viewer")),
            ("operator", person("oscar", "operator")),
            ("admin", of_context(&cluster.coordinator_folder().join("admin.context"))),
            ("replica", of_folder(&cluster.coordinator_folder(), "replica")),
        ]);
        Self { cluster, forger, people }
    }

    fn caller(&self, credentials: Option<&Credentials>) -> Caller {
        let (address, cluster) = (&self.cluster.listen, &self.forger.cluster);
        match credentials {
            Some(credentials) => Caller::with(address, cluster, credentials),
            None => Caller::anonymous(address, cluster, &self.forger.trusted),
        }
    }
}
