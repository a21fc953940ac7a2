//! States, each written over a lower version only.
//!
//! An INSERT creates an item, an UPDATE never does. So a key not known to exist is inserted, one that exists is updated; a
//! write that met the other case goes into the next round.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::calls::Answer;
use super::codes::{Trouble, unavailable};
use super::fetch::garbled;
use super::insert::no_condition;
use super::schema::Table;
use super::state::Keyed;
use super::value::item_from_attributes;
use super::{Dynamo, state};
use crate::event::{StateKey, StateWrite};
use crate::store::{Changed, Retry, RetryCause};

/// INSERT, UPDATE, and once more after a key's item came or went in between.
const ROUNDS_MAX: usize = 4;

/// What a write's next statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Insert,
    Update,
}

impl Dynamo {
    pub(super) async fn change_states(&self, writes: &[&StateWrite]) -> Vec<Changed> {
        let writes: Vec<Keyed<'_>> = writes.iter().map(|write| Keyed::of(write)).collect();
        let mut verdicts: Vec<Option<Changed>> = vec![None; writes.len()];
        let mut open: Vec<(usize, Next)> =
            writes.iter().enumerate().map(|(at, write)| (at, self.first_statement(write))).collect();
        for _ in 0..ROUNDS_MAX {
            if open.is_empty() {
                break;
            }
            open = self.round(&writes, &open, &mut verdicts).await;
        }
        let contended = || {
            let detail = "states: another writer was in the way each time".to_owned();
            Changed::Retry(Retry { cause: RetryCause::Contended, after: None, detail })
        };
        verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(contended)).collect()
    }

    /// Whether the item is known to exist.
    pub(super) fn first_statement(&self, write: &Keyed<'_>) -> Next {
        if self.known.get(&write.hash()).is_some() { Next::Update } else { Next::Insert }
    }

    /// One statement for each open write; gives those that need another.
    async fn round(
        &self,
        writes: &[Keyed<'_>],
        open: &[(usize, Next)],
        verdicts: &mut [Option<Changed>],
    ) -> Vec<(usize, Next)> {
        let shards = match self.shards().await {
            Ok(counts) => counts.wallets,
            Err(trouble) => {
                open.iter().for_each(|(at, _)| verdicts[*at] = Some(trouble.clone().into()));
                return Vec::new();
            }
        };
        let now = super::stored_now();
        let mut sent: [(Vec<_>, Vec<_>); 2] = Default::default();
        for (at, next) in open {
            let write = writes[*at];
            let statement = match next {
                Next::Insert => state::insert(&self.state_texts, write, shards, &now),
                Next::Update => state::update(&self.state_texts, write, shards, &now),
            };
            let (places, statements) = &mut sent[usize::from(state::table(write.write) == Table::Mappings)];
            match statement {
                Ok(statement) => {
                    places.push((*at, *next));
                    statements.push(statement);
                }
                Err(what) => verdicts[*at] = Some(Changed::Rejected(format!("state: {what}"))),
            }
        }
        let [(wallet_places, wallets), (mapping_places, mappings)] = sent;
        let (wallets, mappings) =
            futures::future::join(self.calls(Table::Wallets).run(wallets), self.calls(Table::Mappings).run(mappings))
                .await;
        let answers = wallet_places.into_iter().zip(wallets).chain(mapping_places.into_iter().zip(mappings));
        let (mut again, mut unseen) = (Vec::new(), Vec::new());
        for ((at, next), answer) in answers {
            match self.judge(&writes[at], next, answer) {
                Step::Verdict(verdict) => verdicts[at] = Some(verdict),
                Step::Again(next) => again.push((at, next)),
                Step::Look => unseen.push(at),
            }
        }
        self.look(writes, &unseen, verdicts, &mut again).await;
        again
    }

    /// What one statement's answer means for its write.
    pub(super) fn judge(&self, keyed: &Keyed<'_>, next: Next, answer: Answer) -> Step {
        match (next, answer) {
            (_, Answer::Done) => {
                self.known.insert(keyed.hash(), ());
                Step::Verdict(Changed::Applied)
            }
            (Next::Insert, Answer::Exists) => {
                self.known.insert(keyed.hash(), ());
                Step::Again(Next::Update)
            }
            (Next::Insert, Answer::ConditionFailed(_)) => Step::Verdict(no_condition().into()),
            (Next::Update, Answer::ConditionFailed(Some(item))) => self.compare(keyed.write, item),
            (Next::Update, Answer::ConditionFailed(None)) => Step::Look,
            (Next::Update, Answer::Exists) => {
                Step::Verdict(unavailable("an UPDATE was answered as if it were an INSERT".to_owned()).into())
            }
            (_, Answer::Trouble(trouble)) => Step::Verdict(trouble.into()),
        }
    }

    fn compare(&self, write: &StateWrite, item: HashMap<String, AttributeValue>) -> Step {
        let table = self.table_name(state::table(write));
        let Some(item) = item_from_attributes(item) else {
            return Step::Verdict(garbled(&table, "a value of a foreign kind").into());
        };
        match state::compare(write, &item) {
            Ok(Some(verdict)) => Step::Verdict(verdict),
            Ok(None) => Step::Again(Next::Update),
            Err(what) => Step::Verdict(garbled(&table, &format!("{:?}: {what}", write.key)).into()),
        }
    }

    /// Reads the items of writes that were refused without being shown one: there is none, or the server does not send it.
    async fn look(
        &self,
        writes: &[Keyed<'_>],
        unseen: &[usize],
        verdicts: &mut [Option<Changed>],
        again: &mut Vec<(usize, Next)>,
    ) {
        for table in [Table::Wallets, Table::Mappings] {
            let places: Vec<_> = unseen.iter().copied().filter(|at| state::table(writes[*at].write) == table).collect();
            // Two groups of one wallet may both be among them: one key once.
            let mut keys: Vec<_> = places.iter().map(|at| key(&writes[*at].write.key)).collect();
            keys.sort_unstable();
            keys.dedup();
            let fetched = self.fetch(table, &keys, &[]).await;
            for at in places {
                let write = writes[at].write;
                match fetched.get(&key(&write.key)).map(|item| item.map(|item| state::compare(write, item))) {
                    Err(trouble) => verdicts[at] = Some(trouble.into()),
                    Ok(None) => {
                        self.known.remove(&writes[at].hash());
                        again.push((at, Next::Insert));
                    }
                    Ok(Some(Ok(Some(verdict)))) => verdicts[at] = Some(verdict),
                    Ok(Some(Ok(None))) => again.push((at, Next::Update)),
                    Ok(Some(Err(what))) => {
                        let what = format!("{:?}: {what}", write.key);
                        verdicts[at] = Some(garbled(&self.table_name(table), &what).into());
                    }
                }
            }
        }
    }
}

/// What comes after a statement's answer.
#[derive(Debug)]
pub(crate) enum Step {
    Verdict(Changed),
    Again(Next),
    Look,
}

/// The item's key in the form that items are fetched by.
pub(crate) fn key(key: &StateKey) -> Vec<String> {
    state::key_attributes(key).into_iter().map(|(_, text)| text).collect()
}

impl From<Trouble> for Changed {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Retry(retry) => Self::Retry(retry),
            Trouble::Rejected(detail) => Self::Rejected(detail),
        }
    }
}
