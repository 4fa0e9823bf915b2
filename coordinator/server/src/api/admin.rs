//! Tokens, users, membership.

use std::{collections::BTreeMap, time::Duration};

use data_encoding::BASE32_NOPAD;
use mainstay_common::{
    NodeId, TokenId, UserName,
    identity::{HumanRole, Subject},
    process::{now, random, tls::Certificate},
    token::{JoinToken, Secret},
};
use mainstay_core::{
    Command, Consequence, KeyFingerprint,
    ca::Holder,
    declare::{Changes, diff},
    node, token, user,
};
use mainstay_proto::v1 as pb;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use super::{Shared, caller, convert, failure};
use crate::{gate::Caller, identity, log::By};

/// A token that many machines use must not live longer.
const MAX_TTL: Duration = Duration::from_secs(24 * 3_600);
/// Who becomes a replica knows everything: it must be soon.
const MAX_REPLICA_TTL: Duration = Duration::from_secs(15 * 60);
/// What a token may admit.
const MAX_USES: u32 = 10_000;

/// `Admin`.
pub(crate) struct AdminService(pub(crate) Shared);

impl AdminService {
    async fn propose(&self, by: By, command: Command) -> Result<Consequence, Status> {
        let log = &self.0.log;
        log.propose(by, command).await.map_err(|error| failure::proposal(&error, &log.read()))
    }
}

/// A token's id follows from its secret's hash, so that asking twice means the same token.
fn token_id(secret_sha256: [u8; 32]) -> Result<TokenId, Status> {
    let digest = Sha256::new().chain_update("mainstay token id").chain_update(secret_sha256).finalize();
    // Base32 has no '-', which parts a token's pieces.
    let text = BASE32_NOPAD.encode(&digest[..5]).to_ascii_lowercase();
    text.parse().map_err(|error| failure::invalid_name(&error))
}

fn actor<T>(request: &Request<T>) -> Result<UserName, Status> {
    match caller(request)? {
        Caller::User(_, name, _) => Ok(name),
        Caller::Anonymous | Caller::Agent(..) | Caller::Replica(..) => {
            Err(Status::internal("the gate let somebody else in"))
        }
    }
}

#[tonic::async_trait]
impl pb::admin_server::Admin for AdminService {
    type BackupStream = super::backup::Pieces;

    async fn backup(&self, request: Request<pb::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        // Each one that leaves is in the audit: a name would answer the second as the first.
        let (by, user) = (By { asked: None, ..super::by(&request)? }, actor(&request)?);
        let pieces = super::backup::take(&self.0, by).await?;
        tracing::warn!(%user, "a backup is taken: whoever holds it holds the cluster");
        Ok(Response::new(pieces))
    }

    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        let (by, created_by) = (super::by(&request)?, actor(&request)?);
        let asked = request.into_inner();
        let (role, max_ttl) = match asked.role.as_str() {
            "agent" => (token::Role::Agent, MAX_TTL),
            "replica" => (token::Role::Replica, MAX_REPLICA_TTL),
            _ => {
                let why = format!("{:?} is no role that a token can give", asked.role);
                return Err(failure::invalid("no token was made", &why, "--role agent or replica"));
            }
        };
        let ttl = Duration::from_millis(asked.ttl_ms);
        if ttl.is_zero() || ttl > max_ttl {
            let longest = mainstay_common::time::span(max_ttl);
            let why = format!("a token for a {} lives more than nothing and at most {longest}", role.as_str());
            return Err(failure::invalid("no token was made", &why, &format!("--ttl {longest}")));
        }
        if asked.uses == 0 || asked.uses > MAX_USES {
            return Err(failure::invalid("no token was made", "a token admits 1 to 10000 machines", "--uses 1"));
        }
        let own = asked.secret_sha256.is_empty().then(|| Secret(random()));
        if own.is_some() && by.asked.is_some() {
            let why = "its secret would be lost with the answer, and with it what the name is for";
            return Err(failure::invalid("a named request for a token brings secret_sha256", why, "without a name"));
        }
        let secret_sha256 = match &own {
            Some(secret) => secret.sha256(),
            None => asked.secret_sha256.try_into().map_err(|_| {
                failure::invalid("no token was made", "a SHA-256 has 32 bytes", "secret_sha256 of 32 bytes")
            })?,
        };
        let created_at = now();
        let id = token_id(secret_sha256)?;
        let wished = token::Token {
            secret_sha256: KeyFingerprint(secret_sha256),
            created_at,
            created_by: created_by.clone(),
            expires_at: created_at.plus(ttl),
            uses_left: asked.uses,
            admitted: BTreeMap::new(),
            revoked_at: None,
            role: (role != token::Role::Agent).then_some(role),
        };
        self.propose(by, Command::Token(token::Command::Create(id.clone(), wished))).await?;
        // Whoever asked before gets the token of that time.
        let state = self.0.log.read();
        let kept = state.tokens.iter().find(|(there, _)| **there == id).map(|(_, token)| token);
        let kept = kept.filter(|kept| kept.secret_sha256 == KeyFingerprint(secret_sha256));
        let expires_at = kept.ok_or_else(failure::token_taken)?.expires_at;
        tracing::info!(token = %id, user = %created_by, %expires_at, uses = asked.uses, "token made");
        let ca_pin = self.0.ca.pin();
        let whole = own.map(|secret| JoinToken { role: asked.role.clone(), id: id.clone(), secret, ca_pin });
        Ok(Response::new(pb::CreateTokenResponse {
            id: id.to_string(),
            token: whole.map(|whole| whole.to_string()).unwrap_or_default(),
            role: asked.role,
            expires_at_ms: expires_at.0,
            ca_pin: ca_pin.to_vec(),
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        let now = now();
        let state = self.0.state(&request).await?;
        let rows = state.tokens.iter().map(|(id, token)| pb::TokenRow {
            id: id.to_string(),
            role: token.role().as_str().into(),
            expires_at_ms: token.expires_at.0,
            uses_left: token.uses_left,
            state: token.standing(now).as_str().into(),
            admitted: token.admitted.values().map(ToString::to_string).collect(),
            created_by: token.created_by.to_string(),
        });
        Ok(Response::new(pb::ListTokensResponse { rows: rows.collect() }))
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        let (by, user) = (super::by(&request)?, actor(&request)?);
        let state = self.0.state(&request).await?;
        let asked = request.into_inner().id;
        let id: TokenId = asked.parse().map_err(|_| failure::token_unknown(&asked))?;
        if !state.tokens.iter().any(|(there, _)| *there == id) {
            return Err(failure::token_unknown(&asked));
        }
        self.propose(by, Command::Token(token::Command::Revoke(id.clone()))).await?;
        tracing::info!(token = %id, %user, "token revoked");
        Ok(Response::new(pb::RevokeTokenResponse {}))
    }

    async fn add_user(&self, request: Request<pb::AddUserRequest>) -> Result<Response<pb::AddUserResponse>, Status> {
        let (by, added_by) = (super::by(&request)?, actor(&request)?);
        let asked = request.into_inner();
        let name: UserName = asked.name.parse().map_err(|error| failure::invalid_name(&error))?;
        let role: HumanRole = asked.role.parse().map_err(|_| {
            failure::invalid(
                "no user was added",
                &format!("{:?} is no role", asked.role),
                "--role viewer, operator or admin",
            )
        })?;
        let signing = identity::Request::from_der(&asked.csr).map_err(|error| failure::unsigned(&error))?;
        let added_at = now();
        let user = user::User { role, key: signing.key(), added_at, added_by: added_by.clone(), revoked_at: None };
        self.0.ca.issuing().map_err(|error| failure::unsigned(&error))?;
        self.propose(by, Command::User(user::Command::Add(name.clone(), user))).await?;
        let subject = Subject::User(role, name.clone());
        let certificate =
            self.0.ca.sign_client(&signing, subject, added_at).map_err(|error| failure::unsigned(&error))?;
        super::ca::note_holder(&self.0, Holder::User(name.clone()));
        let expires_at = Certificate::from_pem(&certificate).map(|read| read.not_after.0).unwrap_or_default();
        tracing::info!(user = %name, role = %role, by = %added_by, "user added");
        Ok(Response::new(pb::AddUserResponse {
            cluster_id: self.0.cluster_id.to_string(),
            cluster: self.0.cluster.to_string(),
            certificate,
            ca: self.0.ca.bundle(),
            addresses: self.0.addresses(),
            expires_at_ms: expires_at,
        }))
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        let state = self.0.state(&request).await?;
        let rows = state.users.iter().map(|(name, user)| pb::UserRow {
            name: name.to_string(),
            role: user.role.to_string(),
            state: if user.revoked_at.is_some() { "revoked" } else { "active" }.into(),
            added_at_ms: user.added_at.0,
            added_by: user.added_by.to_string(),
        });
        Ok(Response::new(pb::ListUsersResponse { rows: rows.collect() }))
    }

    async fn revoke_user(
        &self,
        request: Request<pb::RevokeUserRequest>,
    ) -> Result<Response<pb::RevokeUserResponse>, Status> {
        let (by, user) = (super::by(&request)?, actor(&request)?);
        let asked = request.into_inner().name;
        let name: UserName = asked.parse().map_err(|error| failure::invalid_name(&error))?;
        self.propose(by, Command::User(user::Command::Revoke(name.clone()))).await?;
        tracing::info!(user = %name, by = %user, "user revoked");
        Ok(Response::new(pb::RevokeUserResponse {}))
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Result<Response<pb::RemoveNodeResponse>, Status> {
        let (by, user) = (super::by(&request)?, actor(&request)?);
        let asked = request.into_inner().name;
        let id: NodeId = asked.parse().map_err(|_| failure::node_unknown(&asked, &self.0.log.read()))?;
        self.propose(by, Command::Node(node::Command::Remove(id.clone()))).await?;
        self.0.view.forget(id.clone()).await;
        tracing::info!(node = %id, %user, "node removed");
        Ok(Response::new(pb::RemoveNodeResponse {}))
    }

    async fn declare(&self, request: Request<pb::DeclareRequest>) -> Result<Response<pb::DeclareResponse>, Status> {
        let (by, user) = (super::by(&request)?, actor(&request)?);
        let state = self.0.state(&request).await?;
        let asked = request.into_inner();
        if !asked.dry_run
            && let Some(Consequence::Declared(revision)) = self.0.recall(&by, &state)?
        {
            return Ok(Response::new(pb::DeclareResponse { changes: Vec::new(), revision }));
        }
        let wished = convert::declare::wished(&asked)?;
        if asked.revision.is_some_and(|revision| revision != state.declared_at) {
            return Err(failure::declarations_changed(
                "somebody else declared something since the difference was shown",
            ));
        }
        let Changes { declare, steps } = diff(&state, &wished.declared, asked.prune);
        declare.check(&state).map_err(|why| wished.refused(&why))?;
        let changes: Vec<pb::Change> = steps.iter().map(convert::declare::change_row).collect();
        if asked.dry_run || changes.is_empty() {
            return Ok(Response::new(pb::DeclareResponse { changes, revision: state.declared_at }));
        }
        let Consequence::Declared(revision) = self.propose(by, Command::Declare(declare)).await? else {
            return Err(Status::internal("declarations are declared"));
        };
        tracing::info!(%user, revision, changes = changes.len(), "declarations changed");
        Ok(Response::new(pb::DeclareResponse { changes, revision }))
    }

    async fn rotate_ca(&self, request: Request<pb::RotateCaRequest>) -> Result<Response<pb::RotateCaResponse>, Status> {
        let by = super::by(&request)?;
        Ok(Response::new(super::ca::rotate(&self.0, by, &request.into_inner()).await?))
    }

    async fn remove_replica(
        &self,
        request: Request<pb::RemoveReplicaRequest>,
    ) -> Result<Response<pb::RemoveReplicaResponse>, Status> {
        let (by, user) = (super::by(&request)?, actor(&request)?);
        let removed = super::cluster::remove(&self.0, by, &request.into_inner().replica).await?;
        tracing::info!(replica = %removed, %user, "replica removed");
        Ok(Response::new(pb::RemoveReplicaResponse { replica: removed.to_string() }))
    }

    async fn transfer_leadership(
        &self,
        request: Request<pb::TransferLeadershipRequest>,
    ) -> Result<Response<pb::TransferLeadershipResponse>, Status> {
        let user = actor(&request)?;
        let leads = super::cluster::transfer(&self.0, &request.into_inner().replica).await?;
        tracing::info!(to = %leads, %user, "leadership was transferred");
        Ok(Response::new(pb::TransferLeadershipResponse { replica: leads.to_string() }))
    }
}
