//! A topic behind its breaker: while its brokers take nothing it is left alone, and lanes wait instead of filling its queue.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Message, Published, Topic};
use crate::telemetry::Watched;

/// See the module. Verdicts pass through it as they are.
pub struct GuardedTopic {
    topic: Arc<dyn Topic>,
    breaker: Arc<Watched>,
}

impl GuardedTopic {
    /// This topic, behind this breaker.
    pub fn new(topic: Arc<dyn Topic>, breaker: Arc<Watched>) -> Self {
        Self { topic, breaker }
    }
}

impl Topic for GuardedTopic {
    fn publish<'a>(&'a self, messages: &'a [&'a Message]) -> BoxFuture<'a, Vec<Published>> {
        Box::pin(async move {
            let call = match self.breaker.permit() {
                Ok(call) => call,
                Err(after) => {
                    let detail = format!("{} gave no answer a moment ago and is left alone", self.breaker.name());
                    let retry = Published::Retry { after: Some(after), detail };
                    return vec![retry; messages.len()];
                }
            };
            let verdicts = self.topic.publish(messages).await;
            let answered = |verdict: &Published| !matches!(verdict, Published::Retry { .. });
            match verdicts.first() {
                Some(Published::Retry { detail, .. }) if !verdicts.iter().any(answered) => drop(call.failure(detail)),
                _ => call.success(),
            }
            verdicts
        })
    }

    fn bytes_max(&self) -> usize {
        self.topic.bytes_max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Guarded, Metrics};
    use crate::topic::Placement;
    use std::sync::Mutex;

    /// Answers as told, and notes how many messages each call had.
    #[derive(Default)]
    struct Scripted {
        away: Mutex<bool>,
        calls: Mutex<Vec<usize>>,
    }

    impl Topic for Scripted {
        fn publish<'a>(&'a self, messages: &'a [&'a Message]) -> BoxFuture<'a, Vec<Published>> {
            self.calls.lock().unwrap().push(messages.len());
            let away = *self.away.lock().unwrap();
            let verdict = |at: usize| match (at, away) {
                (0, false) => Published::Durable,
                (1, false) => Published::Rejected("too large".into()),
                _ => Published::Retry { after: None, detail: "no broker".into() },
            };
            Box::pin(std::future::ready((0..messages.len()).map(verdict).collect()))
        }

        fn bytes_max(&self) -> usize {
            7
        }
    }

    #[tokio::test(start_paused = true)]
    async fn away_it_is_left_alone_and_what_is_answered_passes_as_it_is() {
        let metrics = Metrics::new().unwrap();
        let inner = Arc::new(Scripted::default());
        let topic = GuardedTopic::new(inner.clone(), metrics.breakers.of(Guarded::RequestTopic));
        let message = Message { key: None, value: None, headers: Vec::new(), placement: Placement::ByKey };
        let three = [&message; 3];
        for _ in 0..10 {
            let verdicts = topic.publish(&three).await;
            assert!(matches!(
                &verdicts[..],
                [Published::Durable, Published::Rejected(_), Published::Retry { after: None, .. }]
            ));
        }
        *inner.away.lock().unwrap() = true;
        for _ in 0..20 {
            topic.publish(&three).await;
        }
        assert_eq!(inner.calls.lock().unwrap().len(), 15, "five more, then none");
        let verdicts = topic.publish(&three).await;
        let Some(Published::Retry { after: Some(after), .. }) = verdicts.last() else { panic!("{verdicts:?}") };
        assert_eq!(verdicts.len(), 3);
        *inner.away.lock().unwrap() = false;
        tokio::time::advance(*after).await;
        assert!(topic.publish(&three).await.contains(&Published::Durable));
        assert_eq!(inner.calls.lock().unwrap().len(), 16);
    }
}
