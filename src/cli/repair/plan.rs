//! What a redrive is to do: which letters of which pipeline, under which run.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::cli::{run, show};
use crate::config::Settings;
use crate::event::{Position, Reason};
use crate::ledger::RunItem;
use crate::pipeline::Pipeline;
use crate::source::range::Range;
use crate::store::dynamodb::Dynamo;

use super::args::{LetterFilter, RedriveArgs};
use super::corrections::Corrections;
use super::letters::{Found, Place, Selection};
use super::list::{say_strangers, shown};
use super::redrive::{KIND, resolved, search, whole_topic};
use super::spec::RangeSpec;
use super::{as_they_stand, find_run};

/// How often an event is tried, where nothing else is said.
const ATTEMPTS_MAX: u32 = 5;

/// What a redrive was told, as it stands in the ledger table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Spec {
    /// Those that were to be looked at, by name: no others are when it is taken up.
    pipelines: Vec<String>,
    filter: FilterSpec,
    attempts_max: u32,
    /// The digest of the file of corrected events; empty without one.
    corrected: String,
    ranges: Vec<RangeSpec>,
    /// With a count: the last letter that it chose.
    last: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FilterSpec {
    reason: Vec<String>,
    route: Vec<String>,
    topic: Vec<String>,
    origin: Vec<String>,
    since: Option<String>,
    until: Option<String>,
    key: Option<String>,
    count: Option<u64>,
}

impl From<&LetterFilter> for FilterSpec {
    fn from(filter: &LetterFilter) -> Self {
        Self {
            reason: filter.reason.iter().map(|reason| reason.name().to_owned()).collect(),
            route: filter.route.clone(),
            topic: filter.topic.clone(),
            origin: filter.origin.clone(),
            since: filter.since.map(|time| time.to_string()),
            until: filter.until.map(|time| time.to_string()),
            key: filter.key.clone(),
            count: filter.count,
        }
    }
}

impl FilterSpec {
    fn filter(&self) -> anyhow::Result<LetterFilter> {
        let reason = |name: &String| {
            Reason::from_name(name).ok_or_else(|| anyhow::anyhow!("the run on record names no reason: {name}"))
        };
        let time = |text: &Option<String>| text.as_ref().map(|text| text.parse()).transpose();
        Ok(LetterFilter {
            reason: self.reason.iter().map(reason).collect::<anyhow::Result<_>>()?,
            route: self.route.clone(),
            topic: self.topic.clone(),
            origin: self.origin.clone(),
            since: time(&self.since)?,
            until: time(&self.until)?,
            key: self.key.clone(),
            count: self.count,
        })
    }
}

/// One pipeline's part of a redrive.
pub(super) struct Planned {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) run: RunItem,
    pub(super) ranges: Vec<Range>,
    found: Found,
    pub(super) selection: Selection,
}

/// Whether a run on record has anything of the dead-letter topic.
pub(super) fn has_ranges(run: &RunItem) -> bool {
    serde_json::from_str::<Spec>(&run.spec).is_ok_and(|spec| !spec.ranges.is_empty())
}

impl Planned {
    /// Whether no letter is to be tried.
    pub(super) fn is_empty(&self) -> bool {
        self.selection.chosen.is_empty()
    }
}

/// What a redrive is told, as given or as it stands on record.
struct Told {
    pipelines: Vec<String>,
    filter: FilterSpec,
    attempts_max: u32,
    /// Whether it was begun before.
    begun: bool,
}

/// What a plan is made of.
pub(super) struct Planning<'a> {
    pub(super) args: &'a RedriveArgs,
    /// The run's.
    pub(super) name: &'a str,
    pub(super) settings: &'a Settings,
    pub(super) dynamo: &'a Dynamo,
    pub(super) corrections: &'a Corrections,
    /// Ends the reading.
    pub(super) stop: &'a CancellationToken,
}

impl Planning<'_> {
    /// What is to be done in each pipeline, shown to the user; the inner error is the user's.
    pub(super) async fn all(&self, pipelines: &[Arc<Pipeline>]) -> anyhow::Result<Result<Vec<Planned>, String>> {
        let Self { args, name, dynamo, corrections, .. } = *self;
        let mut runs = Vec::with_capacity(pipelines.len());
        for pipeline in pipelines {
            runs.push(match &args.again.run {
                Some(_) => find_run(dynamo, pipeline, KIND, name).await?,
                None => None,
            });
        }
        let told = match self.told(pipelines, runs.iter().flatten())? {
            Ok(told) => told,
            Err(what) => return Ok(Err(what)),
        };
        // Shared by the pipelines.
        let mut left = told.filter.count.unwrap_or(u64::MAX);
        let mut planned = Vec::with_capacity(pipelines.len());
        for (pipeline, run) in pipelines.iter().zip(runs) {
            let done = run.as_ref().is_some_and(|run| run.done);
            if done || !told.pipelines.iter().any(|name| name == pipeline.name()) {
                continue;
            }
            planned.push(self.one(&told, run, pipeline, &mut left).await?);
        }
        let named: HashSet<&String> = planned.iter().flat_map(|one| one.selection.corrected.keys()).collect();
        // Of a run that was begun some may be recorded by now.
        let unknown = corrections.by_origin.keys().find(|origin| !told.begun && !named.contains(origin));
        if let Some(origin) = unknown {
            return Ok(Err(format!("--corrected: no open dead letter has the origin {origin}")));
        }
        show(shown(&planned.iter().flat_map(|one| &one.found.letters).collect::<Vec<_>>(), 20).as_bytes())?;
        // Every pipeline looks at the same topic.
        if let Some(one) = planned.first() {
            say_strangers(&one.found)?;
        }
        let spent: usize = planned.iter().map(|one| one.selection.spent.len()).sum();
        if spent > 0 {
            let most = told.attempts_max;
            show(format!("{spent} of them were tried {most} times or more and stay where they are\n").as_bytes())?;
        }
        Ok(Ok(planned))
    }

    /// What the redrive is told: what it was begun with, in whichever pipeline that is on record. The inner error is the user's.
    fn told<'a>(
        &self,
        pipelines: &[Arc<Pipeline>],
        mut runs: impl Iterator<Item = &'a RunItem>,
    ) -> anyhow::Result<Result<Told, String>> {
        let Self { args, name, corrections, .. } = *self;
        let given = FilterSpec::from(&args.filter);
        let pipelines = pipelines.iter().map(|pipeline| pipeline.name().to_owned()).collect();
        let Some(run) = runs.next() else {
            if args.again.run.is_some() && args.filter == LetterFilter::default() && corrections.digest.is_empty() {
                return Ok(Err(format!(
                    "no redrive {name} was begun: to begin it, say of which letters (such as --reason), or leave --run out"
                )));
            }
            return Ok(Ok(Told {
                pipelines,
                filter: given,
                attempts_max: args.attempts_max.unwrap_or(ATTEMPTS_MAX),
                begun: false,
            }));
        };
        let spec: Spec = serde_json::from_str(&run.spec)?;
        if args.filter != LetterFilter::default() && given != spec.filter {
            return Ok(Err(format!("redrive {name} was begun with other filters: leave them out, or begin a new run")));
        }
        if args.attempts_max.is_some_and(|most| most != spec.attempts_max) {
            let most = spec.attempts_max;
            return Ok(Err(format!("redrive {name} was begun with --attempts-max {most}: leave it out")));
        }
        if corrections.digest != spec.corrected {
            return Ok(Err(format!("redrive {name} was begun with another --corrected file, or none: give that one")));
        }
        Ok(Ok(Told { pipelines: spec.pipelines, filter: spec.filter, attempts_max: spec.attempts_max, begun: true }))
    }

    /// One pipeline's part, of a run that stands on record or of a new one.
    async fn one(
        &self,
        told: &Told,
        begun: Option<RunItem>,
        pipeline: &Arc<Pipeline>,
        left: &mut u64,
    ) -> anyhow::Result<Planned> {
        let Self { name, settings, dynamo, corrections, .. } = *self;
        // Also letters that were written since the run was begun: they stand for their events now.
        let all = whole_topic(settings, pipeline).await?;
        let spec: Option<Spec> = begun.as_ref().map(|run| serde_json::from_str(&run.spec)).transpose()?;
        let mut ranges = match &spec {
            Some(spec) => {
                let ranges = spec.ranges.iter().map(RangeSpec::range).collect::<anyhow::Result<Vec<_>>>()?;
                as_they_stand(settings, pipeline, ranges).await?
            }
            None => all.clone(),
        };
        let resolved = resolved(dynamo, pipeline, &ranges, Some(name)).await?;
        let mut found = match corrections.narrow(told.filter.filter()?) {
            Some(filter) => search(settings, pipeline, &all, filter, resolved, self.stop).await?,
            None => Found::default(),
        };
        found.letters.retain(|letter| {
            let (partition, offset) = letter.place;
            let holds =
                |range: &Range| range.partition.name == partition.to_string() && Position::Offset(offset) <= range.to;
            ranges.iter().any(holds)
        });
        let mut selection = Selection::default();
        let mut last = None;
        found.letters.retain(|letter| {
            if letter.head.attempts >= told.attempts_max {
                return selection.spent.insert(letter.place);
            }
            let chosen = match &spec {
                Some(spec) => spec.last.is_none_or(|last| letter.place <= last),
                None => *left > 0,
            };
            if chosen {
                *left = left.saturating_sub(1);
                last = Some(letter.place);
                selection.chosen.insert(letter.place);
            }
            chosen
        });
        for letter in &found.letters {
            let origin = letter.head.origin.text();
            if let Some(value) = corrections.by_origin.get(&origin) {
                selection.corrected.insert(origin, value.clone());
            }
        }
        let run = match begun {
            Some(run) => run,
            None => {
                if selection.chosen.is_empty() {
                    // Nothing is this run's, whatever the topic holds later.
                    ranges.clear();
                }
                let spec = Spec {
                    pipelines: told.pipelines.clone(),
                    filter: told.filter.clone(),
                    attempts_max: told.attempts_max,
                    corrected: corrections.digest.clone(),
                    ranges: ranges.iter().map(RangeSpec::of).collect(),
                    last: last.filter(|_| told.filter.count.is_some()),
                };
                let spec = serde_json::to_string(&spec)?;
                let (kind, pipeline, name) = (KIND.to_owned(), pipeline.name().to_owned(), name.to_owned());
                RunItem { kind, pipeline, name, spec, writer: run::writer(), done: false }
            }
        };
        Ok(Planned { pipeline: pipeline.clone(), run, ranges, found, selection })
    }
}
