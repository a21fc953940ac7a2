//! Locks in Redis, for what two processes should not do at once.
//!
//! A lock saves double work; it is not what makes work right: it ends by itself when its holder stands still, and is gone when
//! Redis loses it. Whoever was overtaken is kept from writing by the store ([`crate::ledger::Fence`]), not by the lock. Without
//! an answer from Redis work goes on.

use std::time::Duration;

use tokio::time::Instant;

use crate::redis::{RedisClient, RedisConfig, RedisConfigError, Unanswered};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Counters, LockCall};

/// Returns the holder's word: the caller's own where it is the caller's now.
const TAKE: &str = "local held = redis.call('GET', KEYS[1]) \
                    if held and held ~= ARGV[1] then return held end \
                    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
                    return ARGV[1]";
/// Returns 1 where it is the caller's, and stays so.
const RENEW: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0";
/// Returns 1 where it was the caller's.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Between two tries to take a lock that somebody else has.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// Takes locks.
pub struct Locks {
    client: RedisClient,
    key_prefix: String,
    calls: Counters<LockCall>,
    ttl: Duration,
    writer: String,
}

/// What came of asking for a lock.
pub enum Taken<'a> {
    /// It is ours, while it is kept.
    Ours(Lock<'a>),
    /// Somebody else has it and goes on renewing it: who.
    Held(String),
    /// Redis gives no answer, for this reason.
    Unknown(String),
}

impl Locks {
    /// `ttl` is how long a lock outlives its holder; `writer` names this process. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration.
    pub fn new(
        config: &RedisConfig,
        ttl: Duration,
        writer: String,
        metrics: &Metrics,
    ) -> Result<Self, RedisConfigError> {
        let key_prefix = format!("{}:{}:lock:", config.prefix, config.table_id);
        let client = RedisClient::new(config, metrics)?;
        Ok(Self { client, key_prefix, calls: metrics.lock_calls.clone(), ttl, writer })
    }

    /// Takes a lock, or waits for as long as one outlives its holder. Dropped meanwhile it may have been taken; it ends by
    /// itself.
    pub async fn take(&self, name: &str) -> Taken<'_> {
        // The nonce makes the word this lock's own; the rest is for people.
        let word = format!("{} {}", uuid::Uuid::new_v4().simple(), self.writer);
        let lock = Lock { locks: self, key: format!("{}{name}", self.key_prefix), word };
        let until = Instant::now() + self.ttl + TRY_EVERY;
        let mut seen = None;
        loop {
            match lock.ask_for().await {
                Ok(None) => return Taken::Ours(lock),
                Ok(Some(holder)) => seen = Some(holder),
                // Who was just seen at work is not passed over since one call failed.
                Err(_) if seen.is_some() => {}
                Err(unanswered) => return Taken::Unknown(unanswered.to_string()),
            }
            match seen.take_if(|_| Instant::now() >= until) {
                Some(holder) => return Taken::Held(holder),
                None => tokio::time::sleep(TRY_EVERY).await,
            }
        }
    }
}

/// A lock that was ours when it was taken.
pub struct Lock<'a> {
    locks: &'a Locks,
    key: String,
    word: String,
}

impl Lock<'_> {
    /// Keeps the lock for as long as this is polled, and ends only when somebody else has it: who. A lock that Redis lost is
    /// taken again. Cancel safe.
    pub async fn keep(&self) -> String {
        let every = self.locks.ttl / 3;
        let mut answered = true;
        loop {
            match self.confirm().await {
                Ok(None) => answered = true,
                Ok(Some(holder)) => return holder,
                Err(unanswered) => {
                    if answered {
                        tracing::warn!(lock = self.key, "a lock may be lost, work goes on: {unanswered}");
                    }
                    answered = false;
                }
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Keeps it for another while, and takes it again where nobody has it; who has it, if somebody else has.
    ///
    /// # Errors
    ///
    /// No answer; whether it is ours is unknown.
    pub async fn confirm(&self) -> Result<Option<String>, Unanswered> {
        match self.renew().await {
            Ok(true) => Ok(None),
            Ok(false) => self.ask_for().await,
            Err(unanswered) => Err(unanswered),
        }
    }

    /// Keeps it for another while; false where it is not ours any more.
    ///
    /// # Errors
    ///
    /// No answer; whether it is ours is unknown.
    pub async fn renew(&self) -> Result<bool, Unanswered> {
        let answer = self.eval::<i64>(RENEW).await.map(|answer| answer == 1);
        self.count(answer.as_ref().map(|ours| if *ours { LockCall::Renewed } else { LockCall::Lost }));
        answer
    }

    /// Gives it back; false where it was not ours any more.
    ///
    /// # Errors
    ///
    /// No answer; it ends by itself then.
    pub async fn release(self) -> Result<bool, Unanswered> {
        let answer = self.eval::<i64>(RELEASE).await.map(|answer| answer == 1);
        self.count(answer.as_ref().map(|ours| if *ours { LockCall::Released } else { LockCall::Lost }));
        answer
    }

    /// Who has it, if not we.
    async fn ask_for(&self) -> Result<Option<String>, Unanswered> {
        let answer = self.eval::<String>(TAKE).await;
        self.count(answer.as_ref().map(|word| if *word == self.word { LockCall::Taken } else { LockCall::Held }));
        let word = answer?;
        let holder = word.split_once(' ').map_or(word.as_str(), |(_, holder)| holder);
        Ok((word != self.word).then(|| holder.to_owned()))
    }

    async fn eval<T: redis::FromRedisValue>(&self, script: &str) -> Result<T, Unanswered> {
        let ttl_ms = u64::try_from(self.locks.ttl.as_millis()).unwrap_or(u64::MAX);
        let mut eval = redis::cmd("EVAL");
        eval.arg(script).arg(1).arg(&self.key).arg(&self.word).arg(ttl_ms);
        self.locks.client.call(|mut connection| async move { eval.query_async(&mut connection).await }).await
    }

    fn count(&self, answer: Result<LockCall, &Unanswered>) {
        self.locks.calls.add(answer.unwrap_or(LockCall::Unanswered), 1);
    }
}
