use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tower_plugins_layers::retry::NotReplayable;
use tower_plugins_layers::test_util::ScriptedBody;

use super::*;

/// A body of chunks that may know its size and may have trailers.
struct Chunks {
    chunks: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    sized: bool,
}

impl Chunks {
    fn new(chunks: &[Vec<u8>], trailers: bool, sized: bool) -> Self {
        let end = (
            http::HeaderName::from_static("end"),
            HeaderValue::from_static("here"),
        );
        Self {
            chunks: chunks.iter().cloned().map(Bytes::from).collect(),
            trailers: trailers.then(|| HeaderMap::from_iter([end])),
            sized,
        }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let data = self.chunks.pop_front().map(Frame::data);
        Poll::Ready(
            data.or_else(|| self.trailers.take().map(Frame::trailers))
                .map(Ok),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.sized && self.chunks.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized {
            SizeHint::with_exact(self.chunks.iter().map(|chunk| chunk.len() as u64).sum())
        } else {
            SizeHint::default()
        }
    }
}

fn put<B>(body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::PUT;
    request
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_read_in_part_is_replayed_and_goes_on() {
    let body = ScriptedBody::frames(["one", "two", "three"]);
    let run = run(policy(), put(body), |n, request| async move {
        let mut body = request.into_body();
        if n == 2 {
            return Ok(Response::new(Full::new(body.collect().await?.to_bytes())));
        }
        for expected in ["one", "two"].iter().take(n + 1) {
            let frame = body.frame().await.expect("a frame")?;
            assert_eq!(frame.into_data().expect("data"), expected);
        }
        refused(Reason::ConnectionLost)
    })
    .await;
    let body = run.outcome.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "onetwothree");
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_cap_is_sent_whole_and_not_again() {
    let chunks = vec![vec![b'x'; 16 * 1024]; 16];
    for sized in [false, true] {
        let run = run(
            policy(),
            put(Chunks::new(&chunks, false, sized)),
            |_, request| async {
                let whole = request.into_body().collect().await?.to_bytes();
                assert_eq!(whole, vec![b'x'; 256 * 1024]);
                refused(Reason::ConnectionLost)
            },
        )
        .await;
        assert_eq!(
            (run.attempts.len(), run.reason()),
            (1, Some(Reason::ConnectionLost))
        );
        let error = run.outcome.unwrap_err();
        assert!(error.is::<NotReplayable>());
        assert!(error.to_string().contains("too large to replay"), "{error}");

        // A response is the caller's as it is.
        let run = super::run(
            policy(),
            put(Chunks::new(&chunks, false, sized)),
            |_, request| async {
                request.into_body().collect().await?;
                status(503)
            },
        )
        .await;
        assert_eq!((run.attempts.len(), run.status().as_u16()), (1, 503));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_known_to_be_over_the_cap_is_not_kept_at_all() {
    let body = Full::from(vec![0; 64 * 1024 + 1]);
    let run = run(policy(), put(body), |_, request| async {
        assert!(request.into_body().into_inner().is_ok());
        refused(Reason::ConnectionLost)
    })
    .await;
    assert_eq!(run.attempts.len(), 1);

    let body = Full::from(vec![0; 64 * 1024]);
    let run = super::run(policy(), put(body), |_, request| async {
        assert_eq!(request.body().size_hint().exact(), Some(64 * 1024));
        let body = request.into_body().into_inner().expect_err("a kept body");
        assert_eq!(body.collect().await?.to_bytes().len(), 64 * 1024);
        refused(Reason::ConnectionLost)
    })
    .await;
    assert_eq!(run.attempts.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_left_the_body_unread_may_be_repeated_whatever_its_size() {
    let chunks = vec![vec![b'x'; 16 * 1024]; 16];
    let run = run(
        policy(),
        put(Chunks::new(&chunks, false, false)),
        |n, request| async move {
            if n == 0 {
                return refused(Reason::ConnectFailed);
            }
            let whole = request.into_body().collect().await?.to_bytes();
            assert_eq!(whole.len(), 256 * 1024);
            status(200)
        },
    )
    .await;
    assert_eq!((run.attempts.len(), run.status().as_u16()), (2, 200));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_own_body_failed_is_not_repeated() {
    let script = [
        Some(Ok(Frame::data(Bytes::from_static(b"one")))),
        Some(Err("caller left".into())),
    ];
    let run = run(
        policy(),
        put(ScriptedBody::new(script)),
        |_, request| async {
            request.into_body().collect().await?;
            status(200)
        },
    )
    .await;
    assert_eq!(run.attempts.len(), 1);
    assert_eq!(run.outcome.unwrap_err().to_string(), "caller left");
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_keeps_an_old_attempt_s_body_takes_nothing_from_the_new() {
    let kept = Arc::new(Mutex::new(None));
    let body = ScriptedBody::frames(["one", "two", "three"]);
    let run = run(policy(), put(body), move |n, request| {
        let kept = Arc::clone(&kept);
        async move {
            let mut body = request.into_body();
            if n == 0 {
                body.frame().await.expect("a frame")?;
                *kept.lock().unwrap() = Some(body);
                return refused(Reason::AttemptTimeout);
            }
            let mut old = kept.lock().unwrap().take().expect("the old body");
            assert!(!old.is_end_stream());
            assert!(old.frame().await.expect("a frame").is_err());
            Ok(Response::new(Full::new(body.collect().await?.to_bytes())))
        }
    })
    .await;
    let body = run.outcome.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "onetwothree");
}

#[tokio::test(start_paused = true)]
async fn an_empty_body_costs_nothing_to_repeat() {
    let empty = http_body_util::Empty::<Bytes>::new();
    let run = run(policy(), Request::new(empty), |n, request| async move {
        assert!(request.body().is_end_stream());
        assert_eq!(request.body().size_hint().exact(), Some(0));
        assert_eq!(request.into_body().into_inner().is_ok(), n == 0);
        status(503)
    })
    .await;
    assert_eq!(run.attempts.len(), 4);
}

/// A script of three frames that are alive as long as someone has `alive`.
fn tracked(alive: &Arc<()>) -> ScriptedBody {
    struct Tracked {
        _alive: Arc<()>,
    }
    impl AsRef<[u8]> for Tracked {
        fn as_ref(&self) -> &[u8] {
            b"frame"
        }
    }
    ScriptedBody::new([(); 3].map(|()| {
        let _alive = Arc::clone(alive);
        Some(Ok(Frame::data(Bytes::from_owner(Tracked { _alive }))))
    }))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_outlives_its_call_is_no_longer_kept() {
    let alive = Arc::new(());
    let inner = service_fn(|request: Request<ReplayBody<ScriptedBody>>| async {
        let mut body = request.into_body();
        body.frame().await.expect("a frame")?;
        Ok::<_, BoxError>(Response::new(body))
    });
    let mut service = RetryLayer::new(policy()).layer(inner);
    // The future is over, though it is not dropped.
    let mut future = std::pin::pin!(service.call(put(tracked(&alive))));
    let mut body = future.as_mut().await.unwrap().into_body();
    assert_eq!(Arc::strong_count(&alive), 4);
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_a_body_once_it_is_over_the_cap() {
    let alive = Arc::new(());
    let body = tracked(&alive);
    let run = run(policy().max_replay(9), put(body), move |_, request| {
        let alive = Arc::clone(&alive);
        async move {
            let mut body = request.into_body();
            // The test's own two, and the frames that are kept or yet to come.
            for count in [3, 1, 0] {
                body.frame().await.expect("a frame")?;
                assert_eq!(Arc::strong_count(&alive) - 2, count);
            }
            status(503)
        }
    })
    .await;
    assert_eq!((run.attempts.len(), run.status().as_u16()), (1, 503));
}

proptest! {
    #[test]
    fn every_attempt_reads_the_body_from_its_beginning(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..12),
        trailers: bool,
        sized: bool,
        max in 0_usize..200,
        reads in proptest::collection::vec(0_usize..16, 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(chunks, trailers, sized, max, reads))?;
    }
}

/// One call: attempt n reads `reads[n]` frames and fails, the one after the last reads all.
async fn check(
    chunks: Vec<Vec<u8>>,
    trailers: bool,
    sized: bool,
    max: usize,
    reads: Vec<usize>,
) -> Result<(), TestCaseError> {
    let whole = chunks.concat();
    let read_bytes = |n: usize| chunks.iter().take(n).map(Vec::len).sum::<usize>();

    // The attempts there may be: one more than could be replayed.
    let known_too_large = sized && whole.len() > max;
    let fits = |n: &&usize| !known_too_large && read_bytes(**n) <= max;
    let repeated = reads.iter().take_while(fits).count();
    let succeeds = repeated == reads.len();

    let seen = Arc::new(Mutex::new(Vec::new()));
    let journal = Arc::clone(&seen);
    let body = Chunks::new(&chunks, trailers, sized);
    let plan = Arc::new(reads);
    let plan_of_attempt = Arc::clone(&plan);
    let run = run(
        policy().max_replay(max).max_retries(10),
        put(body),
        move |n, request| {
            let (journal, limit) = (
                Arc::clone(&journal),
                plan_of_attempt.get(n).copied().unwrap_or(usize::MAX),
            );
            async move {
                let mut body = request.into_body();
                let hint = body.size_hint().exact();
                let (mut bytes, mut end) = (Vec::new(), false);
                let mut left = limit;
                // As hyper does, which reads no further than it must.
                while left > 0 && !body.is_end_stream() {
                    let Some(frame) = body.frame().await else {
                        break;
                    };
                    match frame?.into_data() {
                        Ok(data) => bytes.extend_from_slice(&data),
                        Err(frame) => {
                            end = frame.trailers_ref().is_some_and(|t| t["end"] == "here");
                        }
                    }
                    left -= 1;
                }
                journal.lock().unwrap().push((bytes, end, hint));
                if limit == usize::MAX {
                    status(200)
                } else {
                    refused(Reason::ConnectionLost)
                }
            }
        },
    )
    .await;

    let seen = seen.lock().unwrap();
    prop_assert_eq!(run.outcome.is_ok(), succeeds);
    prop_assert_eq!(seen.len(), repeated + 1);
    for (n, (bytes, end, hint)) in seen.iter().enumerate() {
        let frames = plan.get(n).copied().unwrap_or(usize::MAX);
        let length = read_bytes(frames);
        prop_assert_eq!(bytes, &whole[..length]);
        prop_assert!(frames < usize::MAX || *end == trailers);
        prop_assert!(!sized || *hint == Some(whole.len() as u64));
    }
    Ok(())
}
