//! Questions to the engine, each with its own deadline, and what a failure says of the engine.

use std::{error::Error as _, io, path::Path, sync::Arc, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, BollardRequest, Docker,
    errors::Error,
    models::{ContainerInspectResponse, ContainerSummary, EventMessage, Node, Service, SystemInfo, Task, Volume},
    query_parameters as ask,
};
use futures_util::Stream;
use mainstay_common::{state::EngineState, text::exact, time::span};
use tokio::{task::JoinError, time::timeout};

use super::{events, transport};

/// Without an answer to a ping for so long, the engine is frozen.
const PING: Duration = Duration::from_secs(4);
/// `/info` takes 6 ms of an engine that fares well.
const INFO: Duration = Duration::from_secs(5);
/// A list of thousands takes a second.
const LIST: Duration = Duration::from_secs(15);
/// A container that starts on a volume that hangs keeps its own lock, and so its inspection, for ever.
const INSPECT: Duration = Duration::from_secs(10);
/// `/volumes` asks every driver.
const VOLUMES: Duration = Duration::from_secs(10);
/// What a Swarm's managers know.
const SWARM: Duration = Duration::from_secs(8);
/// bollard's own limit; ours are shorter and count the whole reply.
const BOLLARD_SECONDS: u64 = 120;

/// Why a question was not answered, and what state of the engine that shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// The state: never `Ok`.
    pub state: EngineState,
    /// The HTTP status, where the engine answered with an error.
    pub status: Option<u16>,
    /// What was asked, and what came of it.
    pub reason: String,
}

impl Failure {
    /// True where the engine says that there is no such thing.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.status == Some(404)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's other errors say nothing of the engine")]
    fn of(asked: &str, socket: &Path, error: &Error) -> Self {
        let path = exact(socket.as_os_str().as_encoded_bytes());
        let (state, status, why) = match error {
            Error::IOError { err } => {
                let (state, why) = of_io(err, &path);
                return Self { state, status: None, reason: why };
            }
            Error::DockerResponseServerError { status_code, message } => {
                // Proxies before a socket refuse like this.
                let refused = matches!(status_code, 401 | 403);
                let state = if refused { EngineState::Denied } else { EngineState::Error };
                (state, Some(*status_code), format!("{status_code} {}", cut(message.trim())))
            }
            Error::JsonDataError { message, .. } => {
                (EngineState::Error, None, format!("its answer is not understood: {}", cut(message)))
            }
            Error::RequestTimeoutError => (EngineState::Timeout, None, "no answer".to_owned()),
            Error::HyperResponseError { err } => {
                let cause = err.source().map(|source| format!(" ({source})")).unwrap_or_default();
                (EngineState::Error, None, format!("{err}{cause}"))
            }
            other => (EngineState::Error, None, cut(&other.to_string()).to_owned()),
        };
        Self { state, status, reason: format!("{asked}: {why}") }
    }

    pub(super) fn crashed(crash: &JoinError) -> Self {
        let reason = format!("a question to the engine crashed: {crash}");
        Self { state: EngineState::Error, status: None, reason }
    }

    fn late(asked: &str, limit: Duration) -> Self {
        let reason = format!("{asked}: no answer within {}", span(limit));
        Self { state: EngineState::Timeout, status: None, reason }
    }
}

/// What others wrote, no longer than a reason should be.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(200)]
}

#[expect(clippy::wildcard_enum_match_arm, reason = "other errors of a socket are told as they are")]
fn of_io(error: &io::Error, path: &str) -> (EngineState, String) {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            (EngineState::Missing, format!("there is no socket {path}"))
        }
        io::ErrorKind::ConnectionRefused => (EngineState::Refused, format!("nobody listens on {path}")),
        io::ErrorKind::PermissionDenied => (EngineState::Denied, format!("the agent may not open {path}")),
        // The queue of a socket that nobody empties is full.
        io::ErrorKind::WouldBlock => (EngineState::Timeout, format!("nobody takes connections on {path}")),
        _ => (EngineState::Error, format!("{path}: {error}")),
    }
}

/// Asks the engine behind one socket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    docker: Docker,
    socket: Arc<Path>,
}

impl Client {
    /// The engine behind this socket; nothing is asked yet.
    ///
    /// # Errors
    /// [`Failure`] where bollard takes no transport.
    pub fn new(socket: &Path) -> Result<Self, Failure> {
        let socket: Arc<Path> = socket.into();
        let ours = Arc::clone(&socket);
        let send = move |request: BollardRequest| transport::send(Arc::clone(&ours), request);
        let docker =
            Docker::connect_with_custom_transport(send, Some("http://engine"), BOLLARD_SECONDS, API_DEFAULT_VERSION)
                .map_err(|error| Failure::of("bollard", &socket, &error))?;
        Ok(Self { docker, socket })
    }

    async fn within<T>(
        &self,
        asked: &str,
        limit: Duration,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        match timeout(limit, answer).await {
            Ok(answered) => answered.map_err(|error| Failure::of(asked, &self.socket, &error)),
            Err(_) => Err(Failure::late(asked, limit)),
        }
    }

    /// Whether the engine does anything at all.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn ping(&self) -> Result<(), Failure> {
        self.within("GET /_ping", PING, self.docker.ping()).await.map(|_ok| ())
    }

    /// Version, root directory and Swarm of the engine.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn info(&self) -> Result<SystemInfo, Failure> {
        self.within("GET /info", INFO, self.docker.info()).await
    }

    /// All containers, or those of this id: one or none.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn containers(&self, id: Option<&str>) -> Result<Vec<ContainerSummary>, Failure> {
        let filters = id.map(|id| [("id".to_owned(), vec![id.to_owned()])].into());
        let options = ask::ListContainersOptions { all: true, filters, ..Default::default() };
        self.within("GET /containers/json", LIST, self.docker.list_containers(Some(options))).await
    }

    /// Everything about one container.
    ///
    /// # Errors
    /// [`Failure`]; see [`Failure::is_gone`].
    pub async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, Failure> {
        self.within("GET /containers/ID/json", INSPECT, self.docker.inspect_container(id, None)).await
    }

    /// All volumes. The engine asks every volume's filesystem: where one is dead, this costs it a thread for ever.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn volumes(&self) -> Result<Vec<Volume>, Failure> {
        let answer = self.docker.list_volumes(None::<ask::ListVolumesOptions>);
        Ok(self.within("GET /volumes", VOLUMES, answer).await?.volumes.unwrap_or_default())
    }

    /// The Swarm's nodes; of a manager.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn nodes(&self) -> Result<Vec<Node>, Failure> {
        self.within("GET /nodes", SWARM, self.docker.list_nodes(None)).await
    }

    /// The Swarm's services with their counts of tasks; of a manager.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn services(&self) -> Result<Vec<Service>, Failure> {
        let options = ask::ListServicesOptions { status: Some(true), ..Default::default() };
        self.within("GET /services", SWARM, self.docker.list_services(Some(options))).await
    }

    /// The Swarm's tasks; of a manager.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn tasks(&self) -> Result<Vec<Task>, Failure> {
        self.within("GET /tasks", SWARM, self.docker.list_tasks(None)).await
    }

    /// What happens from `since` (seconds since 1970) on, until the engine ends it.
    pub fn events(&self, since_seconds: i64) -> impl Stream<Item = Result<EventMessage, Error>> + use<> {
        let options = ask::EventsOptions {
            since: Some(since_seconds.to_string()),
            filters: Some(events::filters()),
            ..Default::default()
        };
        self.docker.events(Some(options))
    }

    pub(super) fn failure(&self, asked: &str, error: &Error) -> Failure {
        Failure::of(asked, &self.socket, error)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt as _, net::UnixListener};

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn missing_refused_and_denied_are_told_apart() {
        let place = tempfile::tempdir().unwrap();
        let at = place.path().join("engine.sock");
        assert_eq!(state_of(&at).await, EngineState::Missing);
        assert_eq!(state_of(&at.join("below")).await, EngineState::Missing);

        drop(UnixListener::bind(&at).unwrap());
        assert_eq!(state_of(&at).await, EngineState::Refused);

        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o000)).unwrap();
        // Root may open everything: only others can be refused here.
        if !rustix::process::geteuid().is_root() {
            assert_eq!(state_of(&at).await, EngineState::Denied);
        }
        let (state, reason) = of_io(&io::ErrorKind::PermissionDenied.into(), "/s");
        assert_eq!((state, reason.as_str()), (EngineState::Denied, "the agent may not open /s"));
    }

    #[tokio::test]
    async fn an_engine_that_says_nothing_is_late_and_its_connection_is_closed() {
        let place = tempfile::tempdir().unwrap();
        let at = place.path().join("engine.sock");
        let listener = tokio::net::UnixListener::bind(&at).unwrap();
        let silent = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        let client = Client::new(&at).unwrap();
        let late = client.within("GET /_ping", Duration::from_millis(50), client.docker.ping()).await.unwrap_err();
        assert_eq!((late.state, late.reason.as_str()), (EngineState::Timeout, "GET /_ping: no answer within 0s"));
        let asked = timeout(Duration::from_secs(10), silent).await.unwrap().unwrap();
        assert!(asked.starts_with("GET /_ping HTTP/1.1\r\n"), "no version, no absolute address: {asked}");
    }

    #[tokio::test]
    async fn words_that_bollard_does_not_know_are_an_error_with_a_reason() {
        let reply = r#"[{"Id":"a","State":"levitating"}]"#;
        let failure = answering(200, reply).await.1.containers(None).await.unwrap_err();
        assert_eq!(failure.state, EngineState::Error);
        assert!(failure.reason.contains("levitating"), "{failure}");
    }

    #[tokio::test]
    async fn what_the_engine_complains_of_is_told() {
        let (_place, client) = answering(500, r#"{"message":"out of \u001b[31mluck"}"#).await;
        let failure = client.info().await.unwrap_err();
        assert_eq!((failure.state, failure.status), (EngineState::Error, Some(500)));
        assert_eq!(failure.reason, "GET /info: 500 out of \x1b[31mluck", "exact; escaped where it is shown");
        let (_place, client) = answering(403, "Forbidden").await;
        assert_eq!(client.info().await.unwrap_err().state, EngineState::Denied);
        let (_place, client) = answering(404, r#"{"message":"No such container: x"}"#).await;
        assert!(client.inspect("x").await.unwrap_err().is_gone());
    }

    async fn state_of(socket: &Path) -> EngineState {
        Client::new(socket).unwrap().ping().await.unwrap_err().state
    }

    /// An engine that gives one answer to whatever it is asked.
    async fn answering(status: u16, body: &str) -> (tempfile::TempDir, Client) {
        use tokio::io::AsyncWriteExt as _;
        let place = tempfile::tempdir().unwrap();
        let at = place.path().join("engine.sock");
        let listener = tokio::net::UnixListener::bind(&at).unwrap();
        let reply = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4_096];
            assert!(stream.read(&mut asked).await.unwrap() > 0);
            stream.write_all(reply.as_bytes()).await.unwrap();
        });
        (place, Client::new(&at).unwrap())
    }
}
