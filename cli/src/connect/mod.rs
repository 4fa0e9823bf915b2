//! Contexts, and the way from one to a replica.

pub(crate) mod dial;
pub(crate) mod failure;
pub(crate) mod home;
pub(crate) mod keep;
mod lock;

use std::time::Duration;

use mainstay_common::{
    ExitCode, Failure,
    identity::server_name,
    process::{
        context::Context,
        now,
        tls::{self, Credentials, Verdict},
    },
};
use mainstay_proto::v1::{admin_client::AdminClient, operator_client::OperatorClient, viewer_client::ViewerClient};
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Response, Status, transport::Channel};

pub(crate) use failure::Call;
pub(crate) use home::{Home, Located};

use crate::args::Global;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(10);
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
    channel: Option<(Channel, Verdict)>,
    keeping: Option<JoinHandle<()>>,
}

impl Session {
    /// The way that the command line and the environment name.
    ///
    /// # Errors
    /// Where there is no context, or its certificate does not count now.
    pub(crate) fn open(global: &Global) -> Result<Self, Failure> {
        let located = Home::of_env()?.resolve(global.context.as_deref())?;
        failure::check_dates(&located.context, now())?;
        Ok(Self { located, only: global.coordinator.clone(), channel: None, keeping: None })
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
        ask: impl AsyncFnOnce(ViewerClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let client = |channel| ViewerClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        self.call(Call::Looks, async |channel| ask(client(channel)).await).await
    }

    /// Asks for something that operators may do.
    ///
    /// # Errors
    /// The answer, or that none came.
    pub(crate) async fn operate<T>(
        &mut self,
        call: Call,
        ask: impl AsyncFnOnce(OperatorClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        self.call(call, async |channel| ask(OperatorClient::new(channel)).await).await
    }

    /// Asks for something that administrators may do.
    ///
    /// # Errors
    /// The answer, or that none came.
    pub(crate) async fn administer<T>(
        &mut self,
        call: Call,
        ask: impl AsyncFnOnce(AdminClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let client = |channel| AdminClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        self.call(call, async |channel| ask(client(channel)).await).await
    }

    async fn call<T>(
        &mut self,
        call: Call,
        ask: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let (channel, verdict) = self.connected().await?;
        let failure = match timeout(ANSWER, ask(channel)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => failure::certificate_refused(&status, &verdict, &self.located.context, now())
                .unwrap_or_else(|| failure::from_status(&status, call)),
            Err(_) => failure::lost(call, &format!("no answer within {}s", ANSWER.as_secs())),
        };
        if matches!(failure.code, ExitCode::Unreachable | ExitCode::Unknown) {
            self.channel = None;
        }
        Err(failure)
    }

    async fn connected(&mut self) -> Result<(Channel, Verdict), Failure> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let addresses =
            self.only.as_ref().map_or_else(|| self.located.context.addresses.clone(), |only| vec![only.clone()]);
        let (address, channel, verdict) = watched(&self.located, &addresses).await?;
        self.channel = Some((channel.clone(), verdict.clone()));
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

    /// Waits a moment for the context file to be fresh.
    pub(crate) async fn close(self) {
        if let Some(keeping) = self.keeping {
            // Late is no failure: the next command refreshes it.
            drop(timeout(KEEPING, keeping).await);
        }
    }
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
