//! Reaching any replica: every address gets its turn, and a slow one does not hold up the next.

use std::{sync::Arc, time::Duration};

use mainstay_common::{
    ExitCode, Failure,
    process::tls::{self, DialError},
};
use rustls::ClientConfig;
use tokio::{net::TcpStream, task::JoinSet, time::sleep};
use tokio_rustls::client::TlsStream;

/// Longest wait for one address.
const LIMIT: Duration = Duration::from_secs(5);
/// After so long without an answer the next address is tried beside it.
const NEXT: Duration = Duration::from_millis(250);

/// An address that did not come about, and why.
type Unreached = (String, DialError);

/// Connects to the first address that answers; gives that address too.
///
/// # Errors
/// Each address with its reason.
pub(crate) async fn any(
    addresses: &[String],
    server_name: &str,
    config: &Arc<ClientConfig>,
) -> Result<(String, TlsStream<TcpStream>), Vec<Unreached>> {
    let mut waiting = addresses.iter();
    let mut running = JoinSet::new();
    let mut unreached = Vec::new();
    loop {
        let next = waiting.next();
        if let Some(address) = next {
            let (address, name, config) = (address.clone(), server_name.to_owned(), Arc::clone(config));
            running.spawn(async move {
                let dialled = tls::dial(&address, &name, config, LIMIT).await;
                (address, dialled)
            });
        }
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(Ok((address, Ok(stream)))) => return Ok((address, stream)),
                Some(Ok((address, Err(error)))) => unreached.push((address, error)),
                Some(Err(crash)) => unreached.push(("?".into(), DialError::Tls(crash.to_string()))),
                None if next.is_none() => return Err(in_order(unreached, addresses)),
                None => {}
            },
            () = sleep(NEXT), if next.is_some() => {}
        }
    }
}

/// As the context lists them, not as they failed.
fn in_order(mut unreached: Vec<Unreached>, addresses: &[String]) -> Vec<Unreached> {
    unreached.sort_by_key(|(address, _)| addresses.iter().position(|there| there == address));
    unreached
}

/// What a person is told: each address with its reason, those of the same reason together.
pub(crate) fn failure(unreached: &[Unreached], is_dev: bool) -> Failure {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for (address, error) in unreached {
        let reason = error.to_string();
        match reasons.iter_mut().find(|(there, _)| *there == reason) {
            Some((_, addresses)) => addresses.push(address),
            None => reasons.push((reason, vec![address])),
        }
    }
    let why: Vec<String> =
        reasons.iter().map(|(reason, addresses)| format!("{}: {reason}", addresses.join(", "))).collect();
    let why = if why.is_empty() { "the context has no address".to_owned() } else { why.join("; ") };
    let foreign = |(_, error): &Unreached| matches!(error, DialError::Tls(_));
    if !unreached.is_empty() && unreached.iter().all(foreign) {
        return Failure::new(
            ExitCode::Denied,
            "this context does not fit the coordinator that answers",
            why,
            "mainstay context ls; a cluster that was made anew needs a new context from its administrator",
        );
    }
    let try_next = if is_dev {
        "mainstay dev, and leave it running; or: mainstay context ls"
    } else {
        "systemctl status mainstay-coordinator there, or: mainstay context ls"
    };
    Failure::new(ExitCode::Unreachable, "cannot reach the coordinator", why, try_next)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn every_address_is_named_with_its_reason() {
        let refused = || DialError::Io(io::ErrorKind::ConnectionRefused.into());
        let unreached = [
            ("10.0.0.11:7443".to_owned(), refused()),
            ("10.0.0.12:7443".to_owned(), DialError::Timeout(LIMIT)),
            ("10.0.0.13:7443".to_owned(), refused()),
        ];
        insta::assert_snapshot!(failure(&unreached, false), @r"
        cannot reach the coordinator
          why: 10.0.0.11:7443, 10.0.0.13:7443: connection refused; 10.0.0.12:7443: no answer within 5s
          try: systemctl status mainstay-coordinator there, or: mainstay context ls
        ");
        assert_eq!(failure(&unreached, false).code, ExitCode::Unreachable);
    }

    #[test]
    fn a_coordinator_of_another_cluster_is_no_network_trouble() {
        let foreign = [("h:1".to_owned(), DialError::Tls("its certificate is of another cluster".into()))];
        insta::assert_snapshot!(failure(&foreign, false), @r"
        this context does not fit the coordinator that answers
          why: h:1: its certificate is of another cluster
          try: mainstay context ls; a cluster that was made anew needs a new context from its administrator
        ");
        assert_eq!(failure(&foreign, false).code, ExitCode::Denied);
    }
}
