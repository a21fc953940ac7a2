//! The closed sets of label values: nothing from an event ever becomes a label.

/// A label whose values are known when the code is compiled.
pub trait ClosedLabel: Copy + 'static {
    /// Every value, in the order of their indices.
    const ALL: &'static [Self];

    /// The value as it is exposed.
    fn name(self) -> &'static str;

    /// Its place in [`ClosedLabel::ALL`].
    fn index(self) -> usize;
}

/// The names of a label's values.
pub(super) fn names<L: ClosedLabel>() -> Vec<&'static str> {
    L::ALL.iter().map(|value| value.name()).collect()
}

/// Declares an enum and its exposed names together.
macro_rules! closed_label {
    ($(#[$about:meta])* $label:ident { $($(#[$doc:meta])* $value:ident = $name:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $label {
            $($(#[$doc])* $value,)+
        }

        impl $crate::telemetry::metrics::ClosedLabel for $label {
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use closed_label;

closed_label! {
    /// The stages of a batch that are timed.
    Stage {
        /// Decode, classify, validate, map.
        Prepare = "prepare",
        /// Ask the dedupe cache.
        LookUp = "look_up",
        /// Insert the judging records.
        Judge = "judge",
        /// Everything else that the events ask for.
        Apply = "apply",
        /// Tell the dedupe cache.
        Remember = "remember",
    }
}

closed_label! {
    /// What became of an append to the ledger.
    Append {
        /// The entry stands.
        Appended = "appended",
        /// Its answer was lost, but it stands.
        Found = "found",
        /// Another writer extended the chain first.
        Refused = "refused",
        /// Another process took the chain over.
        Fenced = "fenced",
        /// Refused, and the chain does not hold what would refuse it: an alert.
        Contradicted = "contradicted",
        /// No answer, or one to try again after.
        Retried = "retried",
    }
}

closed_label! {
    /// What became of calls about a lock.
    LockCall {
        /// It is ours now.
        Taken = "taken",
        /// It is somebody else's.
        Held = "held",
        /// It stays ours for another while.
        Renewed = "renewed",
        /// It is not ours any more.
        Lost = "lost",
        /// It was ours and is free now.
        Released = "released",
        /// No answer: whether it is ours is unknown.
        Unanswered = "unanswered",
    }
}

closed_label! {
    /// Calls to the store, by DynamoDB's names.
    Operation {
        /// Records, states and ledger entries, 25 at a time.
        BatchExecuteStatement = "batch_execute_statement",
        /// One event of a transactional route.
        ExecuteTransaction = "execute_transaction",
        /// Items by their keys.
        BatchGetItem = "batch_get_item",
        /// Ranges: ledgers, indexes.
        Query = "query",
        /// Looking at and making tables.
        Other = "other",
    }
}

closed_label! {
    /// How a call ended.
    CallResult {
        /// Answered.
        Ok = "ok",
        /// No answer in time.
        Timeout = "timeout",
        /// No connection, or an answer that does not read.
        Unavailable = "unavailable",
        /// The service refused the call as a whole: throttled, not allowed, wrong.
        Refused = "refused",
    }
}

closed_label! {
    /// What the dedupe cache said about an id.
    LookUp {
        /// Done before.
        Known = "known",
        /// Not held.
        Unknown = "unknown",
        /// It gave no answer.
        Away = "away",
        /// It was not asked, because it gave no answer a moment ago.
        Open = "open",
        /// It holds what does not read back.
        Garbled = "garbled",
    }
}

closed_label! {
    /// What became of an id to be remembered.
    Remembered {
        /// Taken.
        Ok = "ok",
        /// No answer.
        Away = "away",
        /// Not tried.
        Open = "open",
    }
}

closed_label! {
    /// Changes of the partitions that this instance owns.
    Rebalance {
        /// Given to it.
        Assigned = "assigned",
        /// Taken away, with time to drain.
        Revoked = "revoked",
        /// Already someone else's.
        Lost = "lost",
    }
}

closed_label! {
    /// How a source position ended, or that it was let go.
    End {
        /// Its record stands under its own origin.
        Recorded = "recorded",
        /// The same event stands under another origin.
        Duplicate = "duplicate",
        /// Left out by a rule or an order.
        Skipped = "skipped",
        /// In the dead-letter topic.
        DeadLettered = "dead_lettered",
        /// Let go unfinished with its partition; whoever owns that now reads it again.
        Abandoned = "abandoned",
    }
}

impl ClosedLabel for crate::store::dynamodb::Table {
    const ALL: &'static [Self] = &Self::ALL;

    fn name(self) -> &'static str {
        Self::name(self)
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl ClosedLabel for crate::event::Reason {
    const ALL: &'static [Self] = &Self::ALL;

    fn name(self) -> &'static str {
        Self::name(self)
    }

    fn index(self) -> usize {
        self as usize
    }
}
