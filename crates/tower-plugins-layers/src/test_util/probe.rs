use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use tower_service::Service;

use crate::BoxError;

/// What a [`Probe`] answers.
#[derive(Clone, Debug, Default)]
pub enum Answer {
    /// A response with the frames `"one"` and `"two"`, and the trailer `end: here`.
    #[default]
    Frames,
    /// A response whose body has ended.
    Empty,
    /// An error that displays as this.
    Error(&'static str),
    /// A response whose body fails after its first frame with an error that displays as this.
    BodyError(&'static str),
    /// A response with one frame, after which the body has nothing for ever.
    Silence,
    /// No answer.
    Never,
}

/// What a [`Probe`] and its clones have seen.
#[derive(Debug, Default)]
pub struct Journal {
    calls: AtomicUsize,
    under_way: AtomicUsize,
    bodies: AtomicUsize,
}

impl Journal {
    /// Calls made so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Calls whose future is neither done nor dropped.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Response bodies that are alive.
    pub fn bodies(&self) -> usize {
        self.bodies.load(Ordering::SeqCst)
    }
}

/// A service that watches how it is called.
///
/// It is not ready at first: its first `poll_ready` is pending and wakes the task. A clone is not
/// ready either, and a call to an instance that is not ready panics, as does a call after a call
/// without readiness between. A reference to it is always ready.
#[derive(Debug, Default)]
pub struct Probe {
    answer: Answer,
    fails_to_be_ready: Option<&'static str>,
    polled: bool,
    ready: bool,
    journal: Arc<Journal>,
}

impl Probe {
    /// A probe that answers with `answer`.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self {
            answer,
            ..Self::default()
        }
    }

    /// A probe that fails to become ready.
    #[must_use]
    pub fn never_ready(error: &'static str) -> Self {
        Self {
            fails_to_be_ready: Some(error),
            ..Self::default()
        }
    }

    /// What it and its clones have seen.
    #[must_use]
    pub fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.journal)
    }

    fn respond<B>(&self, request: Request<B>) -> ProbeFuture<B> {
        self.journal.calls.fetch_add(1, Ordering::SeqCst);
        ProbeFuture {
            _request: request,
            answer: self.answer.clone(),
            yielded: false,
            _under_way: Alive::new(&self.journal, |journal| &journal.under_way),
        }
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self {
            answer: self.answer.clone(),
            fails_to_be_ready: self.fails_to_be_ready,
            polled: false,
            ready: false,
            journal: Arc::clone(&self.journal),
        }
    }
}

impl<B> Service<Request<B>> for Probe {
    type Response = Response<ScriptedBody>;
    type Error = BoxError;
    type Future = ProbeFuture<B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if let Some(error) = self.fails_to_be_ready {
            return Poll::Ready(Err(error.into()));
        }
        if !std::mem::replace(&mut self.polled, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ProbeFuture<B> {
        assert!(
            std::mem::replace(&mut self.ready, false),
            "called without being ready"
        );
        self.polled = false;
        self.respond(request)
    }
}

impl<B> Service<Request<B>> for &Probe {
    type Response = Response<ScriptedBody>;
    type Error = BoxError;
    type Future = ProbeFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ProbeFuture<B> {
        self.respond(request)
    }
}

/// Counts itself among what is alive in a journal.
struct Alive {
    journal: Arc<Journal>,
    count: fn(&Journal) -> &AtomicUsize,
}

impl Alive {
    fn new(journal: &Arc<Journal>, count: fn(&Journal) -> &AtomicUsize) -> Self {
        count(journal).fetch_add(1, Ordering::SeqCst);
        Self {
            journal: Arc::clone(journal),
            count,
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        (self.count)(&self.journal).fetch_sub(1, Ordering::SeqCst);
    }
}

/// The future of [`Probe`]: pending once, then done.
pub struct ProbeFuture<B> {
    _request: Request<B>,
    answer: Answer,
    yielded: bool,
    _under_way: Alive,
}

impl<B> fmt::Debug for ProbeFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeFuture")
            .field("answer", &self.answer)
            .finish_non_exhaustive()
    }
}

impl<B> Unpin for ProbeFuture<B> {}

impl<B> Future for ProbeFuture<B> {
    type Output = Result<Response<ScriptedBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::replace(&mut self.yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let data = |text: &'static str| Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
        let frames: Vec<Option<Result<_, BoxError>>> = match self.answer {
            Answer::Never => return Poll::Pending,
            Answer::Error(error) => return Poll::Ready(Err(error.into())),
            Answer::Empty => Vec::new(),
            Answer::Frames => {
                let trailers = HeaderMap::from_iter([(
                    http::HeaderName::from_static("end"),
                    HeaderValue::from_static("here"),
                )]);
                vec![
                    data("one"),
                    data("two"),
                    Some(Ok(Frame::trailers(trailers))),
                ]
            }
            Answer::BodyError(error) => vec![data("one"), Some(Err(error.into()))],
            Answer::Silence => vec![data("one"), None],
        };
        let mut body = ScriptedBody::new(frames);
        body.alive = Some(Alive::new(&self._under_way.journal, |journal| {
            &journal.bodies
        }));
        Poll::Ready(Ok(Response::new(body)))
    }
}

/// What a [`ScriptedBody`] does next: a frame or an error, or silence from there on.
pub type Step = Option<Result<Frame<Bytes>, BoxError>>;

/// A body that follows a script: a frame or an error each, or `None` for silence from there on.
pub struct ScriptedBody {
    script: Mutex<VecDeque<Step>>,
    ended: AtomicBool,
    alive: Option<Alive>,
}

impl ScriptedBody {
    /// A body that does what `script` says, and then ends.
    #[must_use]
    pub fn new(script: impl IntoIterator<Item = Step>) -> Self {
        let script: VecDeque<_> = script.into_iter().collect();
        Self {
            ended: script.is_empty().into(),
            script: Mutex::new(script),
            alive: None,
        }
    }

    /// A body of these data frames.
    #[must_use]
    pub fn frames(frames: impl IntoIterator<Item = &'static str>) -> Self {
        Self::new(
            frames
                .into_iter()
                .map(|text| Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))),
        )
    }
}

impl fmt::Debug for ScriptedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedBody")
            .field("script", &self.script)
            .finish_non_exhaustive()
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let script = this
            .script
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match script.front() {
            Some(None) => Poll::Pending,
            Some(Some(_)) => Poll::Ready(script.pop_front().flatten()),
            None => {
                *this.ended.get_mut() = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}
