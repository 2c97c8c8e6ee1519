use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::timer::Timer;
use crate::{BoxError, Reason, Refused};

pin_project! {
    /// The body of [`Deadline`]'s responses.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        timer: Timer,
        // Of a stream that may not be silent for too long.
        silence: Option<Box<Silence>>,
        started: bool,
        over: bool,
    }
}

impl<B> ResponseBody<B> {
    /// `silence` is what a stream may be silent for.
    pub(super) fn new(inner: B, timer: Timer, silence: Option<Duration>) -> Self {
        let silence = silence.map(|bound| {
            Box::new(Silence {
                bound,
                timer: Timer::Never,
            })
        });
        Self {
            inner,
            timer,
            silence,
            started: false,
            over: false,
        }
    }
}

/// `body` as it is, within no time.
impl<B> From<B> for ResponseBody<B> {
    fn from(body: B) -> Self {
        Self::new(body, Timer::Never, None)
    }
}

#[derive(Debug)]
struct Silence {
    bound: Duration,
    timer: Timer,
}

impl Silence {
    /// Nothing has come: is it too long now?
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.fires_at().is_none() {
            self.timer = Timer::maybe_at(Instant::now().checked_add(self.bound));
        }
        self.timer.poll(cx)
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        if *this.over {
            return Poll::Ready(None);
        }
        // The deadline goes before the frame, or a body that always has one would outrun it. The
        // clock and not the timer is asked, which only fires when the task lets go.
        let late = *this.started && !this.inner.is_end_stream() && this.timer.has_passed();
        let reason = if late {
            Reason::DeadlineExceeded
        } else if let Poll::Ready(frame) = this.inner.as_mut().poll_frame(cx) {
            *this.started = true;
            *this.over = frame.is_none();
            if let Some(silence) = this.silence {
                silence.timer = Timer::Never;
            }
            let timer = &*this.timer;
            return Poll::Ready(
                frame.map(|frame| frame.map_err(|error| super::of_time(timer, error.into()))),
            );
        } else if this.timer.poll(cx).is_ready() {
            Reason::DeadlineExceeded
        } else {
            let Some(silence) = this.silence else {
                return Poll::Pending;
            };
            ready!(silence.poll(cx));
            Reason::StreamIdle
        };
        *this.over = true;
        Poll::Ready(Some(Err(Refused::new(reason).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
