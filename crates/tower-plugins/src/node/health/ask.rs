//! One check of one endpoint.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};
use tower_plugins_layers::{BoxError, Reason, ReplayBody};
use tower_service::Service;

use super::state::{Failure, Verdict};
use super::{SHORTEST, grpc};
use crate::Body;
use crate::config::{Address, HealthKind, HealthSpec};
use crate::node::endpoint::Shown;
use crate::transport::Transport;

/// What a body may hold that is read for the sake of its connection.
const MAX_BODY: usize = 64 << 10;

/// Asks an endpoint over its own connections, with its credentials.
pub(in super::super) struct Ask {
    kind: HealthKind,
    timeout: Duration,
    /// How long a stream may be silent until somebody is asked to be there.
    silence: Duration,
    /// Whether one that has no health service is well, as it answers.
    is_optional: bool,
    endpoint: Shown,
    transport: Arc<dyn Transport>,
}

/// A check that came to no good end.
pub(super) enum Failed {
    /// By the endpoint.
    There(Failure),
    /// On this side.
    Here,
}

impl Ask {
    pub(in super::super) fn new(
        spec: &HealthSpec,
        endpoint: Shown,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self {
            kind: spec.kind.clone(),
            timeout: spec.timeout,
            silence: spec.interval.max(SHORTEST),
            is_optional: false,
            endpoint,
            transport,
        }
    }

    /// The same of what is at `address`: plugins of go-plugin that are not written in Go seldom have a health service.
    pub(super) const fn of(mut self, address: &Address) -> Self {
        self.is_optional = matches!(address, Address::Subprocess { .. } | Address::Attached(_));
        self
    }

    /// Asks, and tells what came of it and how long it took. It ends with the check, or the stream of checks.
    ///
    /// A panic of a transport is a check that failed.
    pub(super) async fn run(&self, tell: &(dyn Fn(&Verdict, Duration) + Sync)) {
        let begun = Instant::now();
        let asked = async {
            if let HealthKind::GrpcWatch { service } = &self.kind {
                self.watch(service, tell).await
            } else {
                Some(self.once().await.into())
            }
        };
        let verdict = match unpanicked(asked).await {
            Ok(verdict) => verdict,
            Err(()) => {
                let failure = Failure::new(Reason::Panicked, "the check panicked");
                Some(Verdict::Fail(failure))
            }
        };
        if let Some(verdict) = verdict {
            tell(&verdict, begun.elapsed());
        }
    }

    /// Asks once.
    pub(super) async fn once(&self) -> Result<(), Failed> {
        let asked = async {
            match &self.kind {
                HealthKind::Http { path, statuses } => {
                    let well = |status| statuses.contains(&status);
                    self.http(path, &well).await
                }
                HealthKind::Grpc { service } | HealthKind::GrpcWatch { service } => {
                    match grpc::check(self, service).await {
                        Err(Failed::There(why)) if self.is_optional && grpc::is_not_there(&why) => {
                            Ok(())
                        }
                        checked => checked,
                    }
                }
                HealthKind::Tcp | HealthKind::Process => self
                    .transport
                    .probe()
                    .await
                    .map_err(|error| Failed::by(&error)),
            }
        };
        self.in_time(asked).await
    }

    /// `asked`, if it is over in time.
    async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        let answer = timeout(self.timeout, asked).await;
        answer.unwrap_or_else(|_| {
            let message = format!("no answer within {:?}", self.timeout);
            Err(Failure::new(Reason::AttemptTimeout, message).into())
        })
    }

    /// Tells of each change until the stream ends.
    async fn watch(
        &self,
        service: &str,
        tell: &(dyn Fn(&Verdict, Duration) + Sync),
    ) -> Option<Verdict> {
        let begun = Instant::now();
        let opened = self.in_time(async {
            let mut stream = grpc::watch(self, service).await?;
            let first = stream.next().await?;
            Ok((stream, first))
        });
        let (mut stream, first) = match opened.await {
            Ok(opened) => opened,
            Err(Failed::There(failure)) if failure.code == Some(grpc::UNIMPLEMENTED) => {
                return Some(self.once().await.into());
            }
            Err(failed) => return Some(Err(failed).into()),
        };
        let took = begun.elapsed();
        let mut next = first;
        while let Some(said) = next {
            tell(&Verdict::Says(said), took);
            next = match self.listen(&mut stream).await {
                Ok(next) => next,
                Err(gone) => return Some(Verdict::Fail(gone)),
            };
        }
        None
    }

    /// What `stream` says next. While it is silent it is asked by `Check` whether anybody is there: a peer that went away
    /// without a word, or a network between, leaves a stream as it is.
    async fn listen(&self, stream: &mut grpc::Answer) -> Result<Option<grpc::Said>, Failure> {
        loop {
            match timeout(self.silence, stream.next()).await {
                // A stream that breaks says nothing of the endpoint: the next one will.
                Ok(next) => return Ok(next.unwrap_or_default()),
                Err(_) => match self.once().await {
                    // Whatever it says, it is there: how it is, the stream says.
                    Err(Failed::There(gone)) if gone.reason != Some(Reason::Status) => {
                        return Err(gone);
                    }
                    _ => {}
                },
            }
        }
    }

    async fn http(
        &self,
        path: &PathAndQuery,
        is_well: &(dyn Fn(u16) -> bool + Sync),
    ) -> Result<(), Failed> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.clone().into();
        let agent = HeaderValue::from_static("tower-plugins-health");
        request.headers_mut().insert(USER_AGENT, agent);
        let response = self.call(request).await?;
        let status = response.status();
        if is_well(status.as_u16()) {
            return read_to_end(response.into_body()).await;
        }
        let read = read_to_end(response.into_body()).await;
        read?;
        Err(Failure::new(Reason::Status, format!("status {status}")).into())
    }

    /// A call past all layers but the credentials.
    pub(super) async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Failed> {
        let request = request.map(ReplayBody::passthrough);
        let response = (&self.endpoint).call(request).await;
        Ok(response
            .map_err(|error| Failed::by(&error))?
            .map(Body::boxed))
    }
}

/// So that its connection serves another call. One that is too long is left.
async fn read_to_end(mut body: Body) -> Result<(), Failed> {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failed::by(&error))?;
        read += frame.data_ref().map_or(0, bytes::Bytes::len);
        if read > MAX_BODY {
            break;
        }
    }
    Ok(())
}

impl Failed {
    /// A call that failed here, for want of a free connection or of credentials, says nothing of the endpoint.
    pub(super) fn by(error: &BoxError) -> Self {
        let reason = Reason::of(&**error);
        match reason {
            Some(Reason::PoolExhausted | Reason::CredentialsFailed) => Self::Here,
            _ => Failure {
                reason,
                message: with_causes(&**error),
                code: None,
            }
            .into(),
        }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self::There(failure)
    }
}

impl From<Result<(), Failed>> for Verdict {
    fn from(result: Result<(), Failed>) -> Self {
        match result {
            Ok(()) => Self::Pass,
            Err(Failed::There(failure)) => Self::Fail(failure),
            Err(Failed::Here) => Self::Nothing,
        }
    }
}

/// An error with all its causes, in one line.
pub(in super::super) fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What `future` gives, unless it panics.
pub(super) async fn unpanicked<T>(future: impl Future<Output = T>) -> Result<T, ()> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        // Unwind safe: what panicked is never polled again.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(_) => std::task::Poll::Ready(Err(())),
        }
    })
    .await
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tower_plugins_layers::Refused;

    use super::*;

    #[test]
    fn what_fails_on_this_side_says_nothing_of_the_endpoint() {
        let by = |reason| Verdict::from(Err(Failed::by(&Refused::new(reason).into())));
        for reason in [Reason::PoolExhausted, Reason::CredentialsFailed] {
            assert!(matches!(by(reason), Verdict::Nothing), "{reason:?}");
        }
        for reason in [Reason::ConnectFailed, Reason::ConnectionLost] {
            assert!(matches!(by(reason), Verdict::Fail(_)), "{reason:?}");
        }
    }
}
