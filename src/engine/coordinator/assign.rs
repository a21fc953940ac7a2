//! Handing assigned partitions to workers.

use std::sync::Arc;

use crate::engine::lane::Mode;
use crate::engine::worker::ToWorker;
use crate::event::PartitionRef;
use crate::source::{Assignment, Survey};

use super::{BEAT, Coordinator};
use crate::engine::owned::Owned;

impl Coordinator {
    pub(super) async fn assign(&mut self, assignment: Assignment) {
        if self.ending.is_some() {
            return;
        }
        let partition = assignment.partition.clone();
        if self.owned.contains_key(&partition) {
            self.end_lanes(vec![partition.clone()], Mode::Drain);
            self.waiting.insert(partition, assignment);
            return;
        }
        let Some(surveys) = self.survey(&partition).await else {
            self.waiting.insert(partition, assignment);
            return;
        };
        let mut loads = vec![0; self.workers.len()];
        self.owned.values().for_each(|owned| loads[owned.worker] += 1);
        let worker = loads.iter().enumerate().min_by_key(|(_, load)| **load).map_or(0, |(worker, _)| worker);
        self.metrics.partitions.assigned(&self.group, &partition);
        let owned = Owned::by(worker);
        let progress = owned.progress.clone();
        self.owned.insert(partition, owned);
        self.tell(worker, ToWorker::Assign { assignment, surveys, progress });
    }

    /// Assigns what waits and is held up by no earlier lane. The source tells of an assignment only once.
    pub(super) async fn assign_waiting(&mut self) {
        let free: Vec<PartitionRef> =
            self.waiting.keys().filter(|partition| !self.owned.contains_key(*partition)).cloned().collect();
        for partition in free {
            if let Some(assignment) = self.waiting.remove(&partition) {
                self.assign(assignment).await;
            }
        }
    }

    /// The survey of the partition's topic, made once; `None` where the source gives none for now. It may take long, and
    /// the process lives and can be stopped meanwhile.
    async fn survey(&mut self, partition: &PartitionRef) -> Option<Arc<[Survey]>> {
        // A topic made anew under its old name begins elsewhere.
        let of_this_topic =
            |surveys: &&Arc<[Survey]>| surveys.iter().any(|survey| survey.partition.topic_id == partition.topic_id);
        if let Some(surveys) = self.surveys.get(&partition.topic).filter(of_this_topic) {
            return Some(surveys.clone());
        }
        let answer = {
            let mut beat = tokio::time::interval(BEAT);
            let mut asked = self.source.survey(&partition.topic);
            loop {
                tokio::select! {
                    answer = &mut asked => break answer,
                    () = self.stop.cancelled() => return None,
                    _ = beat.tick() => self.heartbeat.touch(),
                }
            }
        };
        match answer {
            Ok(surveys) => {
                let surveys: Arc<[Survey]> = surveys.into();
                self.surveys.insert(partition.topic.clone(), surveys.clone());
                Some(surveys)
            }
            Err(error) => {
                self.not_ready(error.to_string());
                None
            }
        }
    }
}
