//! Runs that read again, on record in the ledger table: what each was told, so that it can be taken up again, and that it is done.
//! Dead letters that a person dismissed stand beside them.

use super::dynamodb::{garbled, unanswered};
use crate::event::FORMAT;
use crate::event::ids::{escape_into, unescape};
use crate::store::Retry;
use crate::store::dynamodb::{Answer, Attributes, Dynamo, Item, Value, stored_now};

/// The most items of one page.
const PAGE: usize = 500;

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunItem {
    /// What it does, such as `replay`; no `|`.
    pub kind: String,
    /// The pipeline that it runs: several may share a group.
    pub pipeline: String,
    /// Its name, unique among the pipeline's runs of its kind; no `|`.
    pub name: String,
    /// What it was told, as JSON.
    pub spec: String,
    /// Which process began it.
    pub writer: String,
    /// Whether it came to its end.
    pub done: bool,
}

impl RunItem {
    /// Its sort key among the group's runs.
    fn place(&self) -> String {
        let mut place = format!("{}|", self.kind);
        escape_into(&mut place, &self.pipeline);
        place.push('|');
        place.push_str(&self.name);
        place
    }

    /// Whose ledger it keeps: the group of its chains.
    pub fn ledger_group(&self, group: &str) -> String {
        format!("{group}/{}/{}/{}", self.kind, self.pipeline, self.name)
    }
}

/// A dead letter that a person decided to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dismissal {
    /// Where its event was read first, in the stored form.
    pub origin: String,
    /// Why.
    pub reason: String,
}

impl Dynamo {
    /// The runs of a group, in no order that matters; a dead process's too.
    ///
    /// # Errors
    ///
    /// Where the table cannot be read, or holds what cannot be understood.
    pub async fn runs(&self, group: &str) -> Result<Vec<RunItem>, Retry> {
        let key = runs_key(group);
        let mut runs: Vec<RunItem> = Vec::new();
        for (from, item) in self.all_items(&key).await? {
            let mut parts = from.split('|');
            let pipeline = |escaped: &str| unescape(escaped).ok_or_else(|| garbled(&key, &format!("{from} is no run")));
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(kind), Some(of), Some(name), None) => {
                    let spec = text_of(&item, "spec").ok_or_else(|| garbled(&key, "a run without what it was told"))?;
                    let writer = text_of(&item, "writer").unwrap_or_default();
                    let (kind, pipeline, name) = (kind.to_owned(), pipeline(of)?, name.to_owned());
                    runs.push(RunItem { kind, pipeline, name, spec, writer, done: false });
                }
                // Sorts right behind its run.
                (Some(kind), Some(of), Some(name), Some("done")) => {
                    let of = pipeline(of)?;
                    let same = |run: &&mut RunItem| run.kind == kind && run.pipeline == of && run.name == name;
                    runs.iter_mut().filter(same).for_each(|run| run.done = true);
                }
                _ => return Err(garbled(&key, &format!("{from} is no run"))),
            }
        }
        Ok(runs)
    }

    /// Writes a run down unless there is one of its kind and name; returns the one that stands, and whether it surely began by
    /// this call.
    ///
    /// # Errors
    ///
    /// Where it may not have been written.
    pub async fn begin_run(&self, group: &str, run: &RunItem) -> Result<(RunItem, bool), Retry> {
        let mut attributes = base(runs_key(group), run.place());
        attributes.push(("spec", Value::Text(run.spec.clone())));
        attributes.push(("writer", Value::Text(run.writer.clone())));
        let begun = self.put_aside(attributes).await?;
        let standing = self.runs(group).await?.into_iter().find(|one| one.place() == run.place());
        Ok((standing.ok_or_else(|| unanswered("the run came and went"))?, begun))
    }

    /// Writes down that a run came to its end.
    ///
    /// # Errors
    ///
    /// Where it may not have been written.
    pub async fn end_run(&self, group: &str, run: &RunItem) -> Result<(), Retry> {
        self.put_once(vec![base(runs_key(group), format!("{}|done", run.place()))]).await
    }

    /// Dead letters of a group that were dismissed.
    ///
    /// # Errors
    ///
    /// Where the table cannot be read, or holds what cannot be understood.
    pub async fn dismissals(&self, group: &str) -> Result<Vec<Dismissal>, Retry> {
        let key = dismissals_key(group);
        let read = |(origin, item): (String, Item)| {
            let reason = text_of(&item, "reason").ok_or_else(|| garbled(&key, "a dismissal without a reason"))?;
            Ok(Dismissal { origin, reason })
        };
        self.all_items(&key).await?.into_iter().map(read).collect()
    }

    /// Writes dismissals down; one that stands already stays as it is.
    ///
    /// # Errors
    ///
    /// Where some of them may not have been written.
    pub async fn dismiss(&self, group: &str, dismissals: &[Dismissal], writer: &str) -> Result<(), Retry> {
        for page in dismissals.chunks(PAGE) {
            let attributes = |dismissal: &Dismissal| {
                let mut attributes = base(dismissals_key(group), dismissal.origin.clone());
                attributes.push(("reason", Value::Text(dismissal.reason.clone())));
                attributes.push(("writer", Value::Text(writer.to_owned())));
                attributes
            };
            self.put_once(page.iter().map(attributes).collect()).await?;
        }
        Ok(())
    }

    /// Inserts each item unless it stands already.
    async fn put_once(&self, items: Vec<Attributes>) -> Result<(), Retry> {
        let asked = items.len();
        let answers = self.insert_ledger_items(items).await;
        if answers.len() != asked {
            return Err(unanswered("no answer"));
        }
        answers.into_iter().try_for_each(|answer| match answer {
            Answer::Done | Answer::Exists => Ok(()),
            Answer::Trouble(trouble) => Err(super::dynamodb::retry(trouble)),
            Answer::ConditionFailed(_) => Err(unanswered("an INSERT was answered as if it had a condition")),
        })
    }

    /// Everything under one partition key, a page at a time, with its sort key.
    async fn all_items(&self, key: &str) -> Result<Vec<(String, Item)>, Retry> {
        let mut items: Vec<(String, Item)> = Vec::new();
        loop {
            let above = items.last().map(|(from, _)| from.clone());
            let page = self.ledger_items_above(key, above, PAGE).await?;
            let last = page.len() < PAGE;
            for item in page {
                let from = text_of(&item, "from").ok_or_else(|| garbled(key, "an item without its key"))?;
                items.push((from, item));
            }
            if last {
                return Ok(items);
            }
        }
    }
}

fn base(key: String, from: String) -> Attributes {
    vec![
        ("created_at", Value::Text(stored_now())),
        ("format", Value::Number(FORMAT.to_string())),
        ("from", Value::Text(from)),
        ("ledger_id", Value::Text(key)),
    ]
}

fn text_of(item: &Item, name: &str) -> Option<String> {
    item.get(name).and_then(Value::text).map(str::to_owned)
}

/// The key of a group's runs. It has fewer parts than any chain's key.
fn runs_key(group: &str) -> String {
    let mut key = "run#".to_owned();
    escape_into(&mut key, group);
    key
}

fn dismissals_key(group: &str) -> String {
    let mut key = "dismissed#".to_owned();
    escape_into(&mut key, group);
    key
}
