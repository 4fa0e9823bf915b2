//! One check per service: who may call what. Whatever is not listed is denied.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use http_body_util::Limited;
use mainstay_common::{
    ReplicaId,
    identity::{HumanRole, Subject},
};
use mainstay_core::{KeyFingerprint, State, cluster, node};
use tonic::{Status, body::Body};
use tower_layer::Layer;
use tower_service::Service;

use super::{Caller, Peer, Refusal, Refusals, limits::call_bytes};
use crate::{api::failure, log::Log, raft::ConfState};

/// The calls whose messages are large, and never end. One service has one limit for its messages: without this,
/// every other call of an agent could hold as much.
const ENDLESS: [&str; 2] = ["/mainstay.v1.Agent/Session", "/mainstay.v1.Replica/Talk"];

/// Whom a service serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// Everybody, also without a certificate.
    Anyone,
    /// Everybody with a certificate that is still good.
    Authenticated,
    /// Agents.
    Agents,
    /// People of this role and up.
    People(HumanRole),
    /// Replicas.
    Replicas,
}

fn door(path: &str) -> Option<Door> {
    let service = path.strip_prefix('/')?.split('/').next()?;
    match service {
        "grpc.health.v1.Health" | "mainstay.v1.Enrol" => Some(Door::Anyone),
        "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection" => Some(Door::Authenticated),
        "mainstay.v1.Agent" => Some(Door::Agents),
        "mainstay.v1.Viewer" => Some(Door::People(HumanRole::Viewer)),
        "mainstay.v1.Operator" => Some(Door::People(HumanRole::Operator)),
        "mainstay.v1.Replica" => Some(Door::Replicas),
        "mainstay.v1.Admin" => Some(Door::People(HumanRole::Admin)),
        _ => None,
    }
}

/// What this replica knows of those who may come in.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) state: &'a State,
    /// Who decides: a replica that was removed does, until those that decide can change.
    pub(super) members: &'a ConfState,
    /// It leads, so the state is as new as any.
    pub(super) leads: bool,
}

/// Whether the state knows that name with that key, and as whom it may call.
///
/// # Errors
/// The refusal, and what the caller is told.
pub(super) fn standing(subject: &Subject, key: KeyFingerprint, sight: Sight<'_>) -> Result<Caller, (Refusal, Status)> {
    let Sight { state, members, leads } = sight;
    match subject {
        Subject::Agent(id) => match state.nodes.standing(id, key) {
            node::Standing::Member => Ok(Caller::Agent(id.clone(), key)),
            node::Standing::Removed => Err((Refusal::Removed, failure::node_removed(id))),
            node::Standing::OtherKey => Err((Refusal::OtherKey, failure::other_key(id))),
            node::Standing::Unknown => Err((Refusal::Unknown, failure::node_unknown_here(id))),
        },
        Subject::User(role, name) => {
            if state.users.allows(name, *role, key) {
                Ok(Caller::User(*role, name.clone(), key))
            } else {
                Err((Refusal::Revoked, failure::user_revoked(name)))
            }
        }
        Subject::Replica(id) => match state.cluster.standing(id, key) {
            cluster::Standing::Member => Ok(Caller::Replica(id.clone(), key)),
            // Who joined later than what is known here has the CA's word for it: without it a replica that lags could
            // not be told of the others. A leader knows everybody: nobody is given a certificate before that.
            cluster::Standing::Later if !leads => Ok(Caller::Replica(id.clone(), key)),
            cluster::Standing::Removed if decides(members, id, key, state) => Ok(Caller::Replica(id.clone(), key)),
            cluster::Standing::Removed => Err((Refusal::Removed, failure::replica_removed(id, state))),
            cluster::Standing::OtherKey => Err((Refusal::OtherKey, failure::other_replica_key(id))),
            cluster::Standing::Later | cluster::Standing::Unknown => {
                Err((Refusal::Unknown, failure::replica_unknown_here(id)))
            }
        },
    }
}

/// Whether a replica that was removed still has a say, and speaks with its own key.
pub(crate) fn decides(members: &ConfState, id: &ReplicaId, key: KeyFingerprint, state: &State) -> bool {
    let is_own = state.cluster.replica(id).is_some_and(|replica| replica.key == Some(key));
    is_own && cluster::number(id).is_some_and(|number| members.all().contains(&number))
}

fn admit(path: &str, peer: Option<&Peer>, sight: Sight<'_>) -> Result<Caller, (Refusal, Status)> {
    let door = door(path).ok_or_else(|| (Refusal::Role, failure::no_such_service(path)))?;
    let peer = peer.ok_or_else(|| (Refusal::Identity, failure::role("nobody", "certificate")))?;
    if door == Door::Anyone {
        return Ok(Caller::Anonymous);
    }
    let caller = match &peer.who {
        None => Caller::Anonymous,
        Some((subject, key)) => standing(subject, *key, sight)?,
    };
    let denied = |needs: &str| Err((Refusal::Role, failure::role(&peer.to_string(), needs)));
    match (door, &caller) {
        (Door::Anyone, _) => Ok(caller),
        (_, Caller::Anonymous) => Err((Refusal::Role, failure::no_certificate())),
        (Door::Authenticated, Caller::Replica(..)) => denied("of an agent or a person"),
        (Door::Authenticated, _) | (Door::Agents, Caller::Agent(..)) | (Door::Replicas, Caller::Replica(..)) => {
            Ok(caller)
        }
        (Door::People(needs), Caller::User(role, ..)) if *role >= needs => Ok(caller),
        (Door::Agents, _) => denied("agent"),
        (Door::Replicas, _) => denied("replica"),
        (Door::People(needs), _) => denied(needs.as_str()),
    }
}

/// Puts a [`Caller`] into every request, or answers that it may not pass.
#[derive(Clone, Debug)]
pub(crate) struct AuthoriseLayer {
    log: Log,
    refusals: Arc<Refusals>,
}

impl AuthoriseLayer {
    pub(crate) fn new(log: Log, refusals: Arc<Refusals>) -> Self {
        Self { log, refusals }
    }
}

impl<S> Layer<S> for AuthoriseLayer {
    type Service = Authorise<S>;

    fn layer(&self, inner: S) -> Authorise<S> {
        Authorise { inner, layer: self.clone() }
    }
}

/// The service that [`AuthoriseLayer`] makes.
#[derive(Clone, Debug)]
pub(crate) struct Authorise<S> {
    inner: S,
    layer: AuthoriseLayer,
}

impl<S> Service<Request<Body>> for Authorise<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let log = &self.layer.log;
        let (state, members) = (log.read(), log.raft().members());
        let members = members.borrow();
        let sight = Sight { state: &state, members: &members, leads: log.leads() };
        match admit(request.uri().path(), peer, sight) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                if !ENDLESS.contains(&request.uri().path()) {
                    let limit = call_bytes(request.uri().path());
                    request = request.map(|body| Body::new(Limited::new(body, limit)));
                }
                Either::Left(self.inner.call(request))
            }
            Err((refusal, status)) => {
                if let Some(peer) = peer {
                    self.layer.refusals.refuse(refusal, peer.address, &peer.to_string(), request.uri().path());
                }
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_common::Timestamp;
    use mainstay_core::{Founding, user};
    use prost::Message as _;
    use tonic::Code;

    use super::*;

    /// Every service × every role: the ladder of people, agents apart, nobody only where anyone may.
    #[test]
    fn each_role_passes_its_own_doors_only() {
        let state = state();
        let peers = [
            ("nobody", None),
            ("agent", Some(Subject::Agent("n1".parse().unwrap()))),
            ("replica", Some(Subject::Replica("r1".parse().unwrap()))),
            ("viewer", Some(Subject::User(HumanRole::Viewer, "viewer".parse().unwrap()))),
            ("operator", Some(Subject::User(HumanRole::Operator, "operator".parse().unwrap()))),
            ("admin", Some(Subject::User(HumanRole::Admin, "admin".parse().unwrap()))),
        ];
        let table = [
            ("/mainstay.v1.Enrol/Redeem", "nobody agent replica viewer operator admin"),
            ("/mainstay.v1.Enrol/Reenrol", "nobody agent replica viewer operator admin"),
            ("/grpc.health.v1.Health/Check", "nobody agent replica viewer operator admin"),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "agent viewer operator admin"),
            ("/mainstay.v1.Agent/Session", "agent"),
            ("/mainstay.v1.Viewer/ListNodes", "viewer operator admin"),
            ("/mainstay.v1.Viewer/GetCa", "viewer operator admin"),
            ("/mainstay.v1.Operator/LabelNode", "operator admin"),
            ("/mainstay.v1.Admin/CreateToken", "admin"),
            ("/mainstay.v1.Admin/RotateCa", "admin"),
            ("/mainstay.v1.Replica/Talk", "replica"),
            ("/mainstay.v1.Replica/FetchOpener", "replica"),
            ("/mainstay.v1.Admins/CreateToken", ""),
            ("mainstay.v1.Admin/CreateToken", ""),
        ];
        for (path, allowed) in table {
            for (name, subject) in &peers {
                let passes = admit(path, Some(&peer(subject.clone(), 1)), sight(&state)).is_ok();
                assert_eq!(passes, allowed.split(' ').any(|role| role == *name), "{name} -> {path}");
            }
        }
    }

    #[test]
    fn every_service_of_the_protos_has_a_door() {
        let files = prost_types::FileDescriptorSet::decode(mainstay_proto::DESCRIPTOR).unwrap();
        let services: Vec<_> = files.file.iter().flat_map(|file| &file.service).map(|service| service.name()).collect();
        assert_eq!(services.len(), 6);
        for service in services {
            assert!(door(&format!("/mainstay.v1.{service}/X")).is_some(), "{service}");
        }
    }

    #[test]
    fn another_key_under_a_known_name_stays_out() {
        let state = state();
        let agent = Subject::Agent("n1".parse().unwrap());
        let admin = Subject::User(HumanRole::Admin, "admin".parse().unwrap());
        let replica = Subject::Replica("r1".parse().unwrap());
        for (subject, path, reason, code) in [
            (agent, "/mainstay.v1.Agent/Session", Refusal::OtherKey, Code::PermissionDenied),
            (admin, "/mainstay.v1.Admin/CreateToken", Refusal::Revoked, Code::Unauthenticated),
            (replica, "/mainstay.v1.Replica/Talk", Refusal::OtherKey, Code::PermissionDenied),
        ] {
            let (refusal, status) = admit(path, Some(&peer(Some(subject), 2)), sight(&state)).unwrap_err();
            assert_eq!((refusal, status.code()), (reason, code));
        }
    }

    #[test]
    fn who_is_unknown_here_is_pending_not_removed() {
        let stranger = Subject::Agent("n2".parse().unwrap());
        let (_, status) =
            admit("/mainstay.v1.Agent/Session", Some(&peer(Some(stranger), 1)), sight(&state())).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
    }

    #[test]
    fn a_removed_replica_has_a_say_until_those_who_decide_have_changed() {
        let mut state = state();
        let id: ReplicaId = "r1".parse().unwrap();
        state.cluster.apply(Timestamp(1), &cluster::Command::Remove(id.clone())).unwrap_err();
        state.cluster.join(KeyFingerprint([9; 32]), "i:1", "i:2", None);
        state.cluster.apply(Timestamp(1), &cluster::Command::Remove(id.clone())).unwrap();
        let subject = Subject::Replica(id);
        let asked = |key, voters: &[u64]| {
            let members = ConfState { voters: voters.to_vec(), ..ConfState::default() };
            let sight = Sight { state: &state, members: &members, leads: true };
            standing(&subject, KeyFingerprint([key; 32]), sight).map_err(|(refusal, _)| refusal)
        };
        assert!(asked(1, &[1, 2]).is_ok());
        assert_eq!(asked(1, &[2]).unwrap_err(), Refusal::Removed);
        assert_eq!(asked(2, &[1, 2]).unwrap_err(), Refusal::Removed);
    }

    #[test]
    fn a_leader_takes_nobody_on_the_word_of_the_ca() {
        let (state, members) = (state(), ConfState::default());
        let asked = |leads| {
            let sight = Sight { state: &state, members: &members, leads };
            standing(&Subject::Replica("r2".parse().unwrap()), KeyFingerprint([7; 32]), sight)
        };
        assert!(asked(false).is_ok());
        assert_eq!(asked(true).unwrap_err().0, Refusal::Unknown);
    }

    fn sight(state: &State) -> Sight<'_> {
        static NOBODY: ConfState = ConfState {
            voters: Vec::new(),
            learners: Vec::new(),
            voters_outgoing: Vec::new(),
            learners_next: Vec::new(),
            auto_leave: false,
        };
        Sight { state, members: &NOBODY, leads: true }
    }

    fn peer(subject: Option<Subject>, key: u8) -> Peer {
        let address = ([127, 0, 0, 1], 1).into();
        Peer { address, who: subject.map(|subject| (subject, KeyFingerprint([key; 32]))) }
    }

    fn state() -> State {
        let mut state = State::founded(Founding {
            id: "c1".parse().unwrap(),
            name: "prod".into(),
            replica: "r1".parse().unwrap(),
            address: "h:1".into(),
        });
        let (now, key) = (Timestamp(0), KeyFingerprint([1; 32]));
        state.nodes.admit(now, &"n1".parse().unwrap(), key);
        let advertise = cluster::Command::Advertise("r1".parse().unwrap(), "h:1".into(), None, Some(key), None);
        state.cluster.apply(now, &advertise).unwrap();
        for role in [HumanRole::Viewer, HumanRole::Operator, HumanRole::Admin] {
            let user = user::User { role, key, added_at: now, added_by: "admin".parse().unwrap(), revoked_at: None };
            state.users.apply(now, &user::Command::Add(role.as_str().parse().unwrap(), user)).unwrap();
        }
        state
    }
}
