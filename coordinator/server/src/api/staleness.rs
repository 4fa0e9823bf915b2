//! Answers from a replica's own view say whose it is, up to which entry, and how long ago the leader was last heard.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use futures_util::future::Either;
use http::{HeaderValue, Request, Response};
use mainstay_common::ReplicaId;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::{log::Log, raft::Status as Standing};

/// Set by callers who take a replica's own view.
pub(super) const STALE: &str = "mainstay-stale";
/// Whose view it is.
const REPLICA: &str = "mainstay-replica";
/// Up to which entry.
const APPLIED: &str = "mainstay-applied";
/// How long ago that replica heard from the leader, in milliseconds; absent where it has not since it started.
const AGE_MS: &str = "mainstay-age-ms";

/// Says it in the head of every such answer.
#[derive(Clone, Debug)]
pub(crate) struct StalenessLayer(pub(crate) Log);

impl<S> Layer<S> for StalenessLayer {
    type Service = Staleness<S>;

    fn layer(&self, inner: S) -> Staleness<S> {
        Staleness { inner, log: self.0.clone() }
    }
}

/// The service that [`StalenessLayer`] makes.
#[derive(Clone, Debug)]
pub(crate) struct Staleness<S> {
    inner: S,
    log: Log,
}

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<S> Service<Request<Body>> for Staleness<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Later<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_stale = request.headers().contains_key(STALE);
        let answer = self.inner.call(request);
        if !is_stale {
            return Either::Left(answer);
        }
        let log = self.log.clone();
        Either::Right(Box::pin(async move {
            // Before the answer is made: it can only be younger.
            let (asked, standing) = (Instant::now(), log.raft().status().await);
            let mut answer = answer.await?;
            if let Some(standing) = standing {
                tell(&mut answer, log.replica(), &standing, asked);
            }
            Ok(answer)
        }))
    }
}

fn tell(answer: &mut Response<Body>, replica: &ReplicaId, standing: &Standing, asked: Instant) {
    let age = standing.heard.map(|heard| (heard + asked.elapsed()).as_millis().to_string());
    let told =
        [(REPLICA, Some(replica.to_string())), (APPLIED, Some(standing.applied.index.to_string())), (AGE_MS, age)];
    for (name, text) in told {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
            answer.headers_mut().insert(name, value);
        }
    }
}
