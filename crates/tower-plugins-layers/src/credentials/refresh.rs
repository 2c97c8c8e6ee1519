use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::token::{Cache, Refresh, Shown, TokenSource};
use crate::gate::take_ready;
use crate::{BoxError, CallContext};

/// Makes [`TokenCredentials`] services, which share one token.
#[derive(Clone, Debug)]
pub struct TokenCredentialsLayer {
    cache: Arc<Cache>,
    invalidate: bool,
}

impl TokenCredentialsLayer {
    /// Shows tokens from `source`. Each is refreshed `before` it expires, or after half its life if that
    /// is later; after a failure the source is left alone for a second.
    #[must_use]
    pub fn new(source: impl TokenSource, before: Duration) -> Self {
        Self {
            cache: Arc::new(Cache::new(source, before, Duration::from_secs(1))),
            invalidate: false,
        }
    }

    /// Whether a token is given up when it is answered with 401, or with gRPC's `UNAUTHENTICATED` in the
    /// head, each one once. The call ends with that answer; the next has a new token. A token that has
    /// come within the last second is kept: an endpoint that takes none would have one asked for by each call.
    #[must_use]
    pub const fn invalidate_on_401(mut self, invalidate: bool) -> Self {
        self.invalidate = invalidate;
        self
    }
}

impl<S> Layer<S> for TokenCredentialsLayer {
    type Service = TokenCredentials<S>;

    fn layer(&self, inner: S) -> TokenCredentials<S> {
        TokenCredentials {
            inner,
            layer: self.clone(),
        }
    }
}

/// Shows a token that is refreshed. See the [module](crate::credentials).
#[derive(Clone, Debug)]
pub struct TokenCredentials<S> {
    inner: S,
    layer: TokenCredentialsLayer,
}

/// Whether the token was not good enough. gRPC says so in the head when it has nothing else to say.
fn is_turned_away<B>(response: &Response<B>) -> bool {
    const UNAUTHENTICATED: &str = "16";
    let code = response.headers().get("grpc-status");
    response.status() == StatusCode::UNAUTHORIZED
        || code.is_some_and(|code| code == UNAUTHENTICATED)
}

fn show<B>(request: &mut Request<B>, header: HeaderValue) {
    request.headers_mut().insert(AUTHORIZATION, header);
}

impl<S, B, RB> Service<Request<B>> for TokenCredentials<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = TokenFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.layer.cache.show() {
            Shown::Now(header, number, refresh) => {
                show(&mut request, header);
                let inner = self.inner.call(request);
                TokenFuture::calling(&self.layer, inner, number, refresh)
            }
            // The instance that is ready stays with the call.
            Shown::Wait(refresh) => {
                TokenFuture::waiting(&self.layer, refresh, take_ready(&mut self.inner), request)
            }
            Shown::Refused(refused) => TokenFuture::refused(&self.layer, refused.into()),
        }
    }
}

impl<'a, S, B, RB> Service<Request<B>> for &'a TokenCredentials<S>
where
    &'a S: Service<Request<B>, Response = Response<RB>>,
    <&'a S as Service<Request<B>>>::Error: Into<BoxError>,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = TokenFuture<&'a S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (&self.inner).poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.layer.cache.show() {
            Shown::Now(header, number, refresh) => {
                show(&mut request, header);
                let inner = (&self.inner).call(request);
                TokenFuture::calling(&self.layer, inner, number, refresh)
            }
            Shown::Wait(refresh) => {
                TokenFuture::waiting(&self.layer, refresh, &self.inner, request)
            }
            Shown::Refused(refused) => TokenFuture::refused(&self.layer, refused.into()),
        }
    }
}

pin_project! {
    /// The future of [`TokenCredentials`].
    #[must_use = "futures do nothing unless polled"]
    pub struct TokenFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
        // What it drives beside its own call, or waits for.
        refresh: Option<Refresh>,
        // Which token it shows, if that is to be known.
        number: Option<u64>,
        layer: TokenCredentialsLayer,
    }
}

pin_project! {
    #[project = Projected]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        // Boxed: only a call that has to wait has it.
        Waiting { parts: Box<Option<(S, Request<B>)>> },
        Calling { #[pin] inner: S::Future },
        Refused { error: Option<BoxError> },
    }
}

impl<S, B> TokenFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn calling(
        layer: &TokenCredentialsLayer,
        inner: S::Future,
        number: u64,
        refresh: Option<Refresh>,
    ) -> Self {
        Self {
            state: State::Calling { inner },
            refresh,
            number: Some(number),
            layer: layer.clone(),
        }
    }

    fn waiting(
        layer: &TokenCredentialsLayer,
        refresh: Refresh,
        service: S,
        request: Request<B>,
    ) -> Self {
        Self {
            state: State::Waiting {
                parts: Box::new(Some((service, request))),
            },
            refresh: Some(refresh),
            number: None,
            layer: layer.clone(),
        }
    }

    fn refused(layer: &TokenCredentialsLayer, error: BoxError) -> Self {
        Self {
            state: State::Refused { error: Some(error) },
            refresh: None,
            number: None,
            layer: layer.clone(),
        }
    }
}

impl<S, B, RB> Future for TokenFuture<S, B>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<RB>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // Polled in any state: a call that has its token helps the next one to come.
        let refreshed = match this.refresh.as_mut() {
            Some(refresh) => Pin::new(refresh).poll(cx),
            None => Poll::Pending,
        };
        if refreshed.is_ready() {
            *this.refresh = None;
        }
        if let Projected::Waiting { parts } = this.state.as_mut().project() {
            let (header, number) = this.layer.cache.after(ready!(refreshed))?;
            #[expect(clippy::expect_used, reason = "taken when this state is left")]
            let (mut service, mut request) = parts.take().expect("polled after its end");
            *this.number = Some(number);
            show(&mut request, header);
            CallContext::waited(request.extensions_mut());
            let inner = service.call(request);
            this.state.set(State::Calling { inner });
        }
        let response = match this.state.project() {
            Projected::Calling { inner } => ready!(inner.poll(cx)).map_err(Into::into)?,
            #[expect(clippy::expect_used, reason = "a future is not polled after its end")]
            Projected::Refused { error } => {
                return Poll::Ready(Err(error.take().expect("polled after its end")));
            }
            Projected::Waiting { .. } => return Poll::Pending,
        };
        if this.layer.invalidate
            && is_turned_away(&response)
            && let Some(number) = this.number.take()
        {
            this.layer.cache.invalidate(number);
        }
        Poll::Ready(Ok(response))
    }
}

impl<S, B> fmt::Debug for TokenFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Waiting { .. } => "Waiting",
            State::Calling { .. } => "Calling",
            State::Refused { .. } => "Refused",
        })
    }
}
