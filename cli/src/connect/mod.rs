//! Contexts, and the way from one to a replica.

pub(crate) mod dial;
pub(crate) mod failure;
pub(crate) mod home;
pub(crate) mod keep;
mod lock;
mod manner;

use std::time::Duration;

use data_encoding::HEXLOWER;
use mainstay_common::{
    ExitCode, Failure,
    identity::server_name,
    process::{
        context::Context,
        now, random,
        tls::{self, Channel, Credentials, Verdict},
    },
};
use mainstay_proto::v1::{admin_client::AdminClient, operator_client::OperatorClient, viewer_client::ViewerClient};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tonic::{
    Response, Status,
    metadata::{Ascii, MetadataValue},
    service::interceptor::InterceptedService,
};

pub(crate) use failure::Call;
pub(crate) use home::{Home, Located};
use manner::{Manner, Staleness};

use crate::{
    args::Global,
    output::{Format, out},
};

/// Where the coordinator says who leads, host:port.
const LEADER: &str = "mainstay-leader";
/// Set by the coordinator where nothing changed, and the same in a moment may succeed.
const AGAIN: &str = "mainstay-again";
/// Set by the coordinator where it keeps no more names of requests.
const UNNAMED: &str = "mainstay-unnamed";
/// How long it is asked again where nothing changed: as long as choosing a leader may take.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long it is asked again, altogether, where nobody knows what came of it.
const RESOLVING: Duration = Duration::from_secs(20);
/// Between two questions, from the second on.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(8);
/// How long the end of the program waits for the context file to be fresh.
const KEEPING: Duration = Duration::from_secs(1);
/// 10,000 nodes with all their containers stay below it.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// One person's way to one cluster: connects when it is first asked, and again after a connection ended.
#[derive(Debug)]
pub(crate) struct Session {
    located: Located,
    /// Only this address, whatever the context says.
    only: Option<String>,
    manner: Manner,
    /// The name that the command line gives to what changes something.
    request: Option<MetadataValue<Ascii>>,
    /// How old the last answer was, until somebody is told.
    staleness: Option<Staleness>,
    format: Format,
    /// Who leads, as a replica said.
    leader: Option<String>,
    /// Who was asked last and could not say anything: somebody else may. It may be cut off from all others.
    clueless: Option<String>,
    channel: Option<(Channel, Verdict)>,
    /// The address behind the channel.
    asked: Option<String>,
    keeping: Option<JoinHandle<()>>,
}

/// A connection, and the manner in which it is asked.
pub(crate) type Way = InterceptedService<Channel, Manner>;

/// What is to be done about a question that was not answered.
enum Next {
    /// Ask there.
    Leader(String),
    /// Ask again, whomever.
    Again,
    /// Ask again, whomever: under the same name it is done once.
    Resolve,
    /// Ask again without a name: the coordinator keeps no more of them.
    Unnamed,
    /// Nothing.
    Stop,
}

impl Session {
    /// The way that the command line and the environment name.
    ///
    /// # Errors
    /// Where there is no context, or its certificate does not count now.
    pub(crate) fn open(global: &Global) -> Result<Self, Failure> {
        let located = Home::of_env()?.resolve(global.context.as_deref())?;
        failure::check_dates(&located.context, now())?;
        Ok(Self {
            located,
            only: global.coordinator.clone(),
            manner: Manner { stale: global.stale, name: None },
            request: global.request.clone(),
            staleness: None,
            format: global.output,
            leader: None,
            clueless: None,
            channel: None,
            asked: None,
            keeping: None,
        })
    }

    /// Who asks, and where.
    pub(crate) fn context(&self) -> &Context {
        &self.located.context
    }

    /// Asks what changes nothing.
    ///
    /// # Errors
    /// The answer, or that none came.
    pub(crate) async fn look<T>(
        &mut self,
        ask: impl AsyncFn(ViewerClient<Way>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let client = |way| ViewerClient::new(way).max_decoding_message_size(MAX_ANSWER_BYTES);
        self.call(Call::Looks, async |way| ask(client(way)).await).await
    }

    /// Asks for something that operators may do.
    ///
    /// # Errors
    /// The answer, or that none came.
    pub(crate) async fn operate<T>(
        &mut self,
        call: Call,
        ask: impl AsyncFn(OperatorClient<Way>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        self.call(call, async |way| ask(OperatorClient::new(way)).await).await
    }

    /// Asks for something that administrators may do.
    ///
    /// # Errors
    /// The answer, or that none came.
    pub(crate) async fn administer<T>(
        &mut self,
        call: Call,
        ask: impl AsyncFn(AdminClient<Way>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let client = |way| AdminClient::new(way).max_decoding_message_size(MAX_ANSWER_BYTES);
        self.call(call, async |way| ask(client(way)).await).await
    }

    /// Asks whoever can answer: a replica that cannot says who leads, and during a change of leaders it is asked again.
    /// What changes something is asked under a name: where nobody knows what came of it, whoever leads then is asked for
    /// the same, and it is done once.
    async fn call<T>(
        &mut self,
        call: Call,
        ask: impl AsyncFn(Way) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        self.manner.name = match call {
            Call::Looks => None,
            Call::Changes(_) | Call::Hides(_) => Some(self.request.clone().unwrap_or_else(random_name)),
        };
        let begun = Instant::now();
        let mut doubt: Option<Failure> = None;
        for attempt in 0.. {
            let (failure, next) = match self.ask(call, &ask).await {
                Ok(answer) => return Ok(answer),
                Err(missed) => missed,
            };
            let leader = match next {
                Next::Leader(leader) if self.only.is_none() => Some(leader),
                Next::Again => None,
                Next::Resolve => {
                    doubt.get_or_insert_with(|| failure.clone());
                    None
                }
                Next::Unnamed if self.request.is_none() && doubt.is_none() && self.manner.name.is_some() => {
                    self.manner.name = None;
                    None
                }
                // Nobody is there now: that says nothing of what was asked before.
                Next::Stop if doubt.is_some() && failure.code == ExitCode::Unreachable => None,
                Next::Leader(_) if doubt.is_some() => None,
                Next::Leader(_) | Next::Unnamed | Next::Stop => return Err(failure),
            };
            if begun.elapsed() >= if doubt.is_some() { RESOLVING } else { PATIENCE } {
                let name = self.manner.name.as_ref().and_then(|name| name.to_str().ok());
                return Err(doubt.map_or(failure, |doubt| failure::unresolved(doubt, call, name, begun.elapsed())));
            }
            self.channel = None;
            if attempt > 0 || leader.is_none() {
                sleep(PAUSE).await;
            }
            self.clueless = if leader.is_none() { self.asked.take() } else { None };
            self.leader = leader;
        }
        unreachable!("it is asked until it is answered or given up")
    }

    async fn ask<T>(
        &mut self,
        call: Call,
        ask: &impl AsyncFn(Way) -> Result<Response<T>, Status>,
    ) -> Result<T, (Failure, Next)> {
        let (channel, verdict) = self.connected().await.map_err(|failure| (failure, Next::Stop))?;
        let way = InterceptedService::new(channel, self.manner.clone());
        // A question that changes nothing is free, as long as there is somebody else to ask.
        let others = call == Call::Looks && self.only.is_none() && self.located.context.addresses.len() > 1;
        let lost = || if others { Next::Again } else { Next::Stop };
        let (failure, next) = match timeout(ANSWER, ask(way)).await {
            Ok(Ok(answer)) => {
                self.staleness = Staleness::of(answer.metadata()).filter(|_| self.manner.stale);
                return Ok(answer.into_inner());
            }
            Ok(Err(status)) => match failure::certificate_refused(&status, &verdict, &self.located.context, now()) {
                Some(failure) => (failure, Next::Stop),
                None => {
                    let failure = failure::from_status(&status, call);
                    let leader = status.metadata().get(LEADER).and_then(|leader| leader.to_str().ok());
                    let next = match leader {
                        Some(leader) => Next::Leader(leader.to_owned()),
                        None if status.metadata().contains_key(AGAIN) => Next::Again,
                        None if status.metadata().contains_key(UNNAMED) => Next::Unnamed,
                        None if failure.code == ExitCode::Unreachable => lost(),
                        None => Next::Stop,
                    };
                    (failure, next)
                }
            },
            Err(_) => (failure::lost(call, &format!("no answer within {}s", ANSWER.as_secs())), lost()),
        };
        if matches!(failure.code, ExitCode::Unreachable | ExitCode::Unknown) {
            self.channel = None;
        }
        let is_open = failure.code == ExitCode::Unknown && self.manner.name.is_some();
        Err((failure, if is_open { Next::Resolve } else { next }))
    }

    /// How old the last answer was, for standard error: told once, and only where a replica's own view was asked for.
    pub(crate) fn staleness(&mut self) -> Option<String> {
        self.staleness.take().map(|staleness| staleness.note(self.format))
    }

    async fn connected(&mut self) -> Result<(Channel, Verdict), Failure> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let addresses = match &self.only {
            Some(only) => vec![only.clone()],
            None => in_turn(&self.located.context.addresses, self.leader.as_ref(), self.clueless.as_ref()),
        };
        let (address, channel, verdict) = watched(&self.located, &addresses).await?;
        self.channel = Some((channel.clone(), verdict.clone()));
        self.asked = Some(address.clone());
        let answered = self.only.is_none().then_some(address);
        let (located, keeper) = (self.located.clone(), channel.clone());
        self.keeping = Some(tokio::spawn(async move {
            // What was asked for does not depend on it; `context ls` shows a certificate that nears its end.
            if let Err(failure) = keep::fresh(keeper, &located, answered.as_deref()).await {
                tracing::debug!(what = failure.what, why = failure.why);
            }
        }));
        Ok((channel, verdict))
    }

    /// Brings the context file up to date now: what was just changed may be about it.
    ///
    /// # Errors
    /// Why it could not be.
    pub(crate) async fn refresh(&mut self) -> Result<(), Failure> {
        let (channel, _) = self.connected().await?;
        if let Some(keeping) = self.keeping.take() {
            drop(keeping.await);
        }
        // It may have been written a moment ago.
        self.located.context = Context::load(&self.located.path)?;
        keep::fresh(channel, &self.located, None).await
    }

    /// Says how old the answer was that was shown, and waits a moment for the context file to be fresh.
    pub(crate) async fn close(mut self) {
        if let Some(note) = self.staleness() {
            out::remark(&note);
        }
        if let Some(keeping) = self.keeping {
            // Late is no failure: the next command refreshes it.
            drop(timeout(KEEPING, keeping).await);
        }
    }
}

/// A name that nobody else gives.
fn random_name() -> MetadataValue<Ascii> {
    let name = HEXLOWER.encode(&random::<16>());
    name.parse().expect("hexadecimal digits are visible ASCII")
}

/// The leader first, and whoever could not say anything last.
fn in_turn(addresses: &[String], leader: Option<&String>, clueless: Option<&String>) -> Vec<String> {
    let others = addresses.iter().filter(|address| Some(*address) != leader && Some(*address) != clueless);
    let last = clueless.filter(|address| Some(*address) != leader && addresses.contains(address));
    leader.into_iter().chain(others).chain(last).cloned().collect()
}

/// Opens a channel to any of these addresses; gives the one that answered.
///
/// # Errors
/// Each address with its reason.
pub(crate) async fn connect(located: &Located, addresses: &[String]) -> Result<(String, Channel), Failure> {
    watched(located, addresses).await.map(|(address, channel, _)| (address, channel))
}

/// The same, and where TLS says why it ended the connection.
async fn watched(located: &Located, addresses: &[String]) -> Result<(String, Channel, Verdict), Failure> {
    let context = &located.context;
    let credentials =
        Credentials { ca: context.ca.clone(), certificate: context.certificate.clone(), key: context.key.clone() };
    let config = tls::client_config(&credentials).map_err(|error| {
        let what = format!("{} is damaged", located.path.display());
        Failure::new(ExitCode::Usage, what, error.to_string(), "mainstay context ls")
    })?;
    let is_dev = located.name.as_deref().is_some_and(|name| name.starts_with("dev"));
    let reached = dial::any(addresses, &server_name(&context.cluster_id), &config).await;
    let (address, stream) = reached.map_err(|unreached: Vec<_>| dial::failure(&unreached, is_dev))?;
    let (channel, verdict) = tls::watched_channel(stream).await.map_err(|error| {
        Failure::new(
            ExitCode::Unreachable,
            format!("{address} does not speak gRPC"),
            error.to_string(),
            "mainstay context ls",
        )
    })?;
    Ok((address, channel, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_asked_first_and_whoever_knows_nothing_last() {
        let all = ["a:1", "b:1", "c:1"].map(str::to_owned);
        let turns = |leader: Option<&str>, clueless: Option<&str>| {
            let own = |address: Option<&str>| address.map(str::to_owned);
            in_turn(&all, own(leader).as_ref(), own(clueless).as_ref()).join(" ")
        };
        assert_eq!(turns(None, None), "a:1 b:1 c:1");
        assert_eq!(turns(Some("c:1"), None), "c:1 a:1 b:1");
        assert_eq!(turns(Some("d:1"), None), "d:1 a:1 b:1 c:1", "one that the context does not know yet");
        assert_eq!(turns(None, Some("a:1")), "b:1 c:1 a:1");
        assert_eq!(turns(Some("a:1"), Some("a:1")), "a:1 b:1 c:1");
        assert_eq!(
            turns(None, Some("d:1")),
            "a:1 b:1 c:1",
            "a leader that the context does not know is not asked again"
        );
    }
}
