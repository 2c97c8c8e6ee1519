use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ErrorKind, Script};

use super::Quota;
use super::bucket::Settings;
use super::shared::{Decision, SharedLimiter, Taking};
use crate::BoxError;

/// Takes from the bucket in one step, by the server's own clock.
///
/// The bucket is kept as its tokens and the time at which it had them, in microseconds: one number for both,
/// as in this process, would have less than a microsecond of precision in Lua. A bucket that is full is none. Times are
/// at most what such a number counts one by one, which the server takes too.
const TAKE: &str = r"
local function whole(x) return math.min(math.ceil(x), 2 ^ 53) end
local rate, burst, n = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local tokens, at = burst, now
local old = redis.call('HMGET', KEYS[1], 't', 'a')
if old[1] and old[2] then
    at = math.max(now, tonumber(old[2]))
    tokens = math.min(burst, tonumber(old[1]) + (at - tonumber(old[2])) * rate / 1000000)
end
local wait = -1
if n > burst then
    wait = -2
elseif tokens >= n then
    tokens = tokens - n
    redis.call('HSET', KEYS[1], 't', string.format('%.17g', tokens), 'a', string.format('%.0f', at))
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', whole((burst - tokens) / rate * 1000 + 1000)))
else
    wait = whole((n - tokens) / rate * 1000000)
end
return {wait, math.floor(tokens)}
";

/// The longest that a key is kept, whatever its rate: what the server's numbers hold.
const SLOWEST: f64 = 1e-8;

#[derive(Clone, Copy, Debug)]
struct Terms {
    per_second: f64,
    burst: u32,
}

impl Terms {
    fn new(per_second: f64, burst: u32) -> Self {
        // What is no number is no rate: `clamp` would let a NaN through.
        let per_second = if per_second.is_nan() {
            SLOWEST
        } else {
            per_second.clamp(SLOWEST, 1e9)
        };
        Self {
            per_second,
            burst: burst.max(1),
        }
    }
}

/// Token buckets on a Redis server, for all processes that use the same prefix and the same settings.
///
/// A script on the server takes the tokens in one step, by the server's clock, so that the fleet together gets
/// no more than the rate and the burst. The connection is made at the first call, and again whenever it
/// breaks. A bucket that is full again expires.
///
/// | option | default | |
/// | --- | --- | --- |
/// | [`prefix`](Self::prefix) | `rate_limit:` | what the keys on the server begin with |
/// | [`timeout`](Self::timeout) | 100 ms | the longest that a call waits for an answer |
///
/// What happens to a call when the server does not answer is for
/// [`RateLimitLayer::on_error`](crate::RateLimitLayer::on_error) to say.
///
/// # Cancellation
/// A call that is dropped while the server is asked may have taken its tokens.
#[derive(Clone)]
pub struct RedisLimiter {
    manager: ConnectionManager,
    script: Arc<Script>,
    /// Clones have the same.
    terms: Arc<Mutex<Terms>>,
    prefix: Arc<str>,
    timeout: Duration,
}

impl RedisLimiter {
    /// Buckets of `burst` tokens, at least one, that gain `per_second`, on the server at `url`:
    /// `redis://host:port/database`, with `user:password@` before the host where it asks for them, or
    /// `unix:/path/of/socket`. The bounds of `per_second` are those of
    /// [`RateLimiter::new`](crate::RateLimiter::new).
    ///
    /// Inside a tokio runtime.
    ///
    /// # Errors
    /// If `url` is none.
    pub fn new(url: &str, per_second: f64, burst: u32) -> Result<Self, BoxError> {
        let client = Client::open(url)?;
        // The time that a call may take is bounded here, and a reconnect goes on in the background.
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(None)
            .set_max_delay(Duration::from_secs(2));
        let manager = ConnectionManager::new_lazy_with_config(client, config)?;
        Ok(Self {
            manager,
            script: Arc::new(Script::new(TAKE)),
            terms: Arc::new(Mutex::new(Terms::new(per_second, burst))),
            prefix: "rate_limit:".into(),
            timeout: Duration::from_millis(100),
        })
    }

    /// Whether `url` is one for [`new`](Self::new). Nobody is connected to.
    ///
    /// # Errors
    /// If it is none.
    pub fn check_url(url: &str) -> Result<(), BoxError> {
        Client::open(url)?;
        Ok(())
    }

    /// Gives this limiter and its clones new settings. A bucket keeps what it holds, up to the new burst; until
    /// every process of the fleet has the new settings, each takes by its own.
    ///
    /// Who waits asks by the new settings when its present wait ends.
    pub fn set_rate(&self, per_second: f64, burst: u32) {
        let mut terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        *terms = Terms::new(per_second, burst);
    }

    fn terms(&self) -> Terms {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what the keys on the server begin with.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the longest that a call waits for the server, to connect included.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn ask(self, key: Vec<u8>, n: u32) -> Result<Decision, BoxError> {
        let Terms { per_second, burst } = self.terms();
        let mut manager = self.manager;
        let mut call = self.script.key(key);
        call.arg(per_second).arg(burst).arg(n);
        let answer = call.invoke_async(&mut manager);
        let (wait, remaining): (i64, u32) = tokio::time::timeout(self.timeout, answer)
            .await
            .map_err(|_| format!("redis did not answer within {:?}", self.timeout))??;
        let taken = match wait {
            -1 => Ok(()),
            -2 => Err(Duration::MAX),
            micros => {
                let micros = u64::try_from(micros)
                    .map_err(|_| redis::RedisError::from((ErrorKind::Parse, "a negative wait")))?;
                Err(Duration::from_micros(micros))
            }
        };
        let window = Settings::new(per_second, burst).window();
        Ok(Decision {
            taken,
            quota: Quota::new(burst, remaining, window),
        })
    }
}

impl SharedLimiter for RedisLimiter {
    fn take(&self, key: &[u8], n: u32) -> Taking {
        let key = [self.prefix.as_bytes(), key].concat();
        Box::pin(self.clone().ask(key, n))
    }
}

impl fmt::Debug for RedisLimiter {
    /// Without the address, which may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms { per_second, burst } = self.terms();
        f.debug_struct("RedisLimiter")
            .field("per_second", &per_second)
            .field("burst", &burst)
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
