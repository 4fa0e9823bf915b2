//! The link to one peer: it dials for as long as it takes, and carries what waits.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use mainstay_common::{
    identity::{Subject, server_name},
    process::tls::{Certificate, Channel, dial, peer_channel},
    text::Shown,
};
use mainstay_core::{KeyFingerprint, cluster};
use mainstay_proto::v1::{self as pb, replica_client::ReplicaClient};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{Contact, Dismissal, MAX_FRAMES_BYTES, Network, greeting, queue::Queue};
use crate::{
    VERSION,
    api::failure::{REPLICA_BARRED, REPLICA_REMOVED},
    raft::{StateHash, Unadmitted},
    versions,
};

/// Longest wait for a connection, and again for the greeting.
const ANSWER: Duration = Duration::from_secs(2);
/// The shortest and the longest wait before it is dialled again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// After a leader's stream broke its host is asked whether anybody listens there still: not before a process that is
/// killed has closed all it had.
const LOOK_AFTER: Duration = Duration::from_millis(5);
/// Each voter waits so much longer than the one before it: together they would split the votes.
const LOOK_IN_TURN: Duration = Duration::from_millis(40);
/// Whoever does not refuse in that time lives, or is not there to refuse.
const LOOK_LIMIT: Duration = Duration::from_millis(80);

/// Keeps the link; never ends by itself.
pub(super) async fn keep(network: &Arc<Network>, peer: u64, contact: &Contact, queue: &Queue) {
    let (mut wait, mut last) = (AGAIN.0, String::new());
    loop {
        let mut stood = None;
        let why = talk(network, peer, contact, queue, &mut stood).await;
        queue.close();
        if stood.is_some() {
            network.links.send_if_modified(|links| links.insert(peer, false) != Some(false));
            network.unreachable(peer);
            look(network, peer, contact).await;
        }
        if why != last {
            tracing::info!(replica = %cluster::numbered(peer), address = %Shown::new(&contact.address), why, "no link to a replica");
            last = why;
        }
        // Who breaks it off at once is not dialled without a pause.
        if stood.is_some_and(|since: Instant| since.elapsed() > AGAIN.1) {
            wait = AGAIN.0;
            last.clear();
        }
        sleep(wait.mul_f64(0.5 + f64::from(dice()) / 510.0)).await;
        wait = (wait * 2).min(AGAIN.1);
    }
}

/// One connection, from its dial to its end; why it ended.
async fn talk(network: &Network, peer: u64, contact: &Contact, queue: &Queue, stood: &mut Option<Instant>) -> String {
    let Some(log) = network.log.get() else { return "there is no log yet".into() };
    let (channel, other) = match reach(network, peer, contact).await {
        Ok(reached) => reached,
        Err(why) => return why,
    };
    let Some(stands) = log.shown().await else { return "this replica is ending".into() };
    let mut client = ReplicaClient::new(channel).max_decoding_message_size(MAX_FRAMES_BYTES);
    let (frames, outgoing) = mpsc::channel(1);
    // Room for one was made a line above.
    frames.try_send(greeting::greeting(&network.own, peer, stands)).unwrap_or(());
    let opening = async {
        let mut answers = client.talk(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = answers.message().await?;
        Ok::<_, Status>((answers, first))
    };
    let (mut answers, first) = match timeout(ANSWER, opening).await {
        Ok(Ok(opened)) if other.is_none() => opened,
        // Whoever answers there instead may say why: a restored cluster left this replica out.
        Ok(Err(status)) => {
            let why = refused(network, &status);
            return other.unwrap_or(why);
        }
        Ok(Ok(_)) | Err(_) => return other.unwrap_or_else(|| "no greeting came".into()),
    };
    let greeted = match greeting::check(&network.own, first, &cluster::numbered(peer)) {
        Ok(greeted) => greeted,
        Err(unwelcome) => return unwelcome.to_string(),
    };
    // It is told when it dials in its turn.
    let _visit = match log.admit(peer, greeting::shown(&greeted)).await {
        Ok(visit) => visit,
        Err(why) => {
            if !matches!(why, Unadmitted::Earlier(_) | Unadmitted::Ending) {
                tracing::error!(replica = %cluster::numbered(peer), %why, "a replica is not talked to any more");
            }
            return why.to_string();
        }
    };
    network.versions.note(peer, greeted.entry_version);
    *stood = Some(Instant::now());
    queue.open();
    network.links.send_if_modified(|links| links.insert(peer, true) != Some(true));
    tracing::info!(replica = %cluster::numbered(peer), "link stands");
    let mut state_hash = network.state_hash.subscribe();
    state_hash.mark_changed();
    loop {
        tokio::select! {
            said = answers.message() => match said {
                Ok(Some(_)) => {}
                Ok(None) => return "it ended the stream".into(),
                Err(status) => return refused(network, &status),
            },
            room = frames.reserve() => {
                let Ok(room) = room else { return "the connection ended".into() };
                tokio::select! {
                    batch = queue.take() => room.send(pb::Frames { frames: batch, ..pb::Frames::default() }),
                    // The sender lives as long as the network.
                    Ok(()) = state_hash.changed() => {
                        let newest = *state_hash.borrow_and_update();
                        room.send(pb::Frames { state_hash: newest.map(convert_hash), ..pb::Frames::default() });
                    }
                    said = answers.message() => match said {
                        Ok(Some(_)) => {}
                        Ok(None) => return "it ended the stream".into(),
                        Err(status) => return refused(network, &status),
                    },
                }
            }
        }
    }
}

fn convert_hash(hash: StateHash) -> pb::StateHash {
    pb::StateHash { index: hash.index, sha256: hash.sha256.to_vec(), version: VERSION.into() }
}

/// A connection to that replica and nobody else.
pub(crate) async fn connect(network: &Network, peer: u64, contact: &Contact) -> Result<Channel, String> {
    match reach(network, peer, contact).await? {
        (channel, None) => Ok(channel),
        (_, Some(other)) => Err(other),
    }
}

/// A connection to whichever replica of this cluster answers there; and, where it is not that one, who it is.
async fn reach(network: &Network, peer: u64, contact: &Contact) -> Result<(Channel, Option<String>), String> {
    let own = &network.own;
    let name = server_name(&own.identity.cluster);
    let stream = dial(&contact.address, &name, own.tls.load_full(), ANSWER).await.map_err(|error| error.to_string())?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or("it shows no certificate")?;
    let shown = Certificate::from_der(shown).map_err(|error| error.to_string())?;
    let id = cluster::numbered(peer);
    let is_it = shown.identity.subject == Subject::Replica(id.clone());
    let other = (!is_it).then(|| format!("{} answers there, not {id}", shown.identity.subject));
    if is_it && contact.key.is_some_and(|key| key != KeyFingerprint(shown.spki_sha256)) {
        return Err(format!("{id} answers there with another key than the one it joined with"));
    }
    let channel = timeout(ANSWER, peer_channel(stream)).await.map_err(|_| "no answer".to_owned())?;
    channel.map(|channel| (channel, other)).map_err(|error| error.to_string())
}

/// Asks that peer to note where this replica is dialled.
pub(super) async fn announce(
    network: &Network,
    peer: u64,
    contact: &Contact,
    address: &str,
    peer_address: &str,
) -> Result<(), String> {
    let mut client = ReplicaClient::new(connect(network, peer, contact).await?);
    let stands = network.log.get().ok_or("there is no log yet")?.shown().await.ok_or("this replica is ending")?;
    let boot = stands.boot;
    let (address, peer_address, entry_version) = (address.to_owned(), peer_address.to_owned(), versions::known());
    let request = pb::AnnounceRequest { address, peer_address, boot, entry_version };
    let answer = timeout(ANSWER, client.announce(request)).await.map_err(|_| "no answer".to_owned())?;
    answer.map(drop).map_err(|status| status.message().replace('\n', "; "))
}

/// Asks that peer to give the administrator's name to this key.
pub(super) async fn reissue(
    network: &Network,
    peer: u64,
    contact: &Contact,
    key: KeyFingerprint,
) -> Result<(), String> {
    let mut client = ReplicaClient::new(connect(network, peer, contact).await?);
    let request = pb::ReissueRequest { key: key.0.to_vec() };
    let answer = timeout(ANSWER, client.reissue(request)).await.map_err(|_| "no answer".to_owned())?;
    answer.map(drop).map_err(|status| status.message().replace('\n', "; "))
}

fn refused(network: &Network, status: &Status) -> String {
    let mut lines = status.message().lines();
    if status.code() == Code::PermissionDenied {
        let (what, mut rest) = (lines.next().unwrap_or_default(), || lines.next().unwrap_or_default().to_owned());
        let dismissal = match what {
            REPLICA_REMOVED => Some(Dismissal::Removed(rest())),
            REPLICA_BARRED => Some(Dismissal::Barred { why: rest(), try_next: rest() }),
            _ => None,
        };
        if dismissal.is_some() {
            network.dismissed.send_replace(dismissal);
        }
    }
    mainstay_common::process::tls::explain(status)
        .unwrap_or_else(|| Shown::new(&status.message().replace('\n', "; ")).cut(300).to_string())
}

/// Where the leader's process is gone and its host lives, nobody has to wait for an election's time.
async fn look(network: &Network, peer: u64, contact: &Contact) {
    let Some(log) = network.log.get() else { return };
    if *log.known_leader().borrow() != Some(peer) {
        return;
    }
    sleep(LOOK_AFTER).await;
    let answer = timeout(LOOK_LIMIT, TcpStream::connect(&contact.address)).await;
    if matches!(answer, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused) {
        tracing::info!(leader = %cluster::numbered(peer), "the leader's process is gone");
        let turn = turn(&log.members().borrow().voters, peer, network.own.identity.replica);
        sleep(LOOK_IN_TURN * turn).await;
        log.leader_gone(peer);
    }
}

/// Which of the voters that are left this replica is, counted from 0.
fn turn(voters: &[u64], gone: u64, own: u64) -> u32 {
    let before = voters.iter().filter(|voter| **voter != gone && **voter < own).count();
    u32::try_from(before).unwrap_or(u32::MAX)
}

/// A random byte: links that broke together are not dialled together.
fn dice() -> u8 {
    let mut byte = [0];
    // Without dice all wait for the same time.
    getrandom::fill(&mut byte).unwrap_or(());
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_take_turns_after_a_leader_went() {
        let turns = |gone| [2, 5, 9].map(|own| turn(&[2, 5, 9], gone, own));
        assert_eq!(turns(2)[1..], [0, 1]);
        assert_eq!([turns(5)[0], turns(5)[2]], [0, 1]);
        assert_eq!(turns(9)[..2], [0, 1]);
    }
}
