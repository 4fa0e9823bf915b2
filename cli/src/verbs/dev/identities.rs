//! Who is who in the mesh: made once, and made anew where a certificate ran out while dev was off.

use std::{fs, path::Path, time::Duration};

use mainstay_agent::{
    enroll::{EnrollConfig, enroll},
    identity::Identity,
};
use mainstay_common::{
    Failure, NodeId, Timestamp,
    process::{
        context::Context,
        data_dir::{self, unusable},
        now,
        tls::{Certificate, Channel},
    },
};
use mainstay_coordinator::{InitConfig, Started, admin_socket, init};
use mainstay_proto::v1::{self as pb, admin_client::AdminClient};

use super::mesh::{LISTEN_PORT, agent_folder};
use crate::connect::{Call, Located, failure};

/// A certificate with less left is made anew at the start.
const LEAST_LEFT: Duration = Duration::from_secs(86_400);
/// How long the join token of this machine counts.
const TOKEN_LIFE: Duration = Duration::from_secs(300);

/// Makes the cluster where there is none yet; false where there was one.
pub(super) fn make_cluster(folder: &Path) -> Result<bool, Failure> {
    let data_dir = folder.join("coordinator");
    if mainstay_coordinator::holds_cluster(&data_dir) {
        return Ok(false);
    }
    let advertise = format!("127.0.0.1:{LISTEN_PORT}");
    init(&InitConfig { data_dir, cluster: "dev".into(), advertise, peer_advertise: None })?;
    Ok(true)
}

/// The administrator's context, with today's address.
pub(super) async fn administrator(folder: &Path, started: &Started) -> Result<Located, Failure> {
    let data_dir = folder.join("coordinator");
    let path = data_dir.join("admin.context");
    let mut context = match Context::load(&path) {
        Ok(context) if counts(&context.certificate, now()) => context,
        // It ran out, or is damaged: whoever runs the replica may always have a new one.
        Ok(_) | Err(_) => admin_socket::request(&data_dir).await?,
    };
    context.addresses = vec![started.listen.to_string()];
    context.save(&path).map_err(|error| unusable(&path, &error))?;
    Ok(Located { name: Some("dev".into()), path, context })
}

fn counts(certificate: &str, now: Timestamp) -> bool {
    Certificate::from_pem(certificate).is_ok_and(|read| read.not_before <= now && now.plus(LEAST_LEFT) < read.not_after)
}

/// Enrols this machine the way every machine is enrolled, unless it was before and its certificate still counts. With
/// the key it has, it stays the same node.
pub(super) async fn enrolled(folder: &Path, started: &Started, channel: Channel) -> Result<NodeId, Failure> {
    let data_dir = agent_folder(folder);
    if let Ok(identity) = Identity::load(&data_dir)
        && now().plus(LEAST_LEFT) < identity.certificate().not_after
    {
        // dev may have come back on another port.
        identity.learn(&[started.listen.to_string()]);
        return Ok(identity.enrolment().node);
    }
    let ttl_ms = u64::try_from(TOKEN_LIFE.as_millis()).unwrap_or(u64::MAX);
    let request = pb::CreateTokenRequest { role: "agent".into(), ttl_ms, uses: 1, secret_sha256: Vec::new() };
    let made = AdminClient::new(channel).create_token(request).await;
    let made = made.map_err(|status| failure::from_status(&status, Call::Changes("mainstay token ls")))?.into_inner();
    let token_file = folder.join("join-token");
    data_dir::replace(&token_file, made.token.as_bytes(), 0o600).map_err(|error| unusable(&token_file, &error))?;
    let coordinator = started.listen.to_string();
    let enrolment = enroll(&EnrollConfig { data_dir, token_file: token_file.clone(), coordinator, name: None }).await;
    fs::remove_file(&token_file).map_err(|error| unusable(&token_file, &error))?;
    Ok(enrolment?.node)
}
