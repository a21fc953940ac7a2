//! Handing assigned partitions to workers.

use std::sync::Arc;

use futures::FutureExt as _;

use crate::engine::lane::Mode;
use crate::engine::owned::Owned;
use crate::engine::worker::{SharedSurvey, ToWorker};
use crate::event::PartitionRef;
use crate::source::{Answer, Assignment, Survey};

use super::Coordinator;

impl Coordinator {
    /// To the worker with the fewest partitions; after an earlier lane of the same place has ended.
    pub(super) fn assign(&mut self, assignment: Assignment) {
        if self.ending.is_some() {
            return;
        }
        let partition = assignment.partition.clone();
        // Only the last one counts, also where its log replaced another one.
        self.waiting.retain(|other, _| !other.is_at_place_of(&partition));
        let before = self.owned_at_places_of(std::slice::from_ref(&partition));
        if !before.is_empty() {
            self.end_lanes(before, Mode::Drain);
            self.waiting.insert(partition, assignment);
            return;
        }
        let mut loads = vec![0; self.workers.len()];
        self.owned.values().for_each(|owned| loads[owned.worker] += 1);
        let worker = loads.iter().enumerate().min_by_key(|(_, load)| **load).map_or(0, |(worker, _)| worker);
        self.metrics.partitions.assigned(&self.group, &partition);
        let begin = assignment.checkpoint.unwrap_or(assignment.log_start);
        let owned = Owned::by(worker, begin.distance_to(assignment.log_end));
        let progress = owned.progress.clone();
        self.owned.insert(partition, owned);
        self.tell(worker, ToWorker::Assign { assignment, progress });
    }

    /// What is owned of these partitions, or of logs that theirs replaced.
    pub(super) fn owned_at_places_of(&self, partitions: &[PartitionRef]) -> Vec<PartitionRef> {
        let at_one = |owned: &&PartitionRef| partitions.iter().any(|partition| owned.is_at_place_of(partition));
        self.owned.keys().filter(at_one).cloned().collect()
    }

    /// The survey of the partition's topic: one that is under way or holds this partition, else a new one.
    pub(super) fn survey(&mut self, partition: &PartitionRef) -> SharedSurvey {
        // A topic made anew under its old name begins elsewhere.
        let of_this_topic =
            |surveys: &Arc<[Survey]>| surveys.iter().any(|survey| survey.partition.topic_id == partition.topic_id);
        let known = self.surveys.get(&partition.topic).filter(|survey| match survey.peek() {
            None => true,
            Some(answer) => answer.as_ref().is_ok_and(of_this_topic),
        });
        if let Some(survey) = known {
            return survey.clone();
        }
        let answer = self.source.survey(&partition.topic);
        let shared: Answer<Arc<[Survey]>> = Box::pin(async { answer.await.map(Arc::from) });
        let survey = shared.shared();
        self.surveys.insert(partition.topic.clone(), survey.clone());
        survey
    }
}
