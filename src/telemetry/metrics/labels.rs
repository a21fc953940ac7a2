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
        /// No answer, or one to try again after.
        Retried = "retried",
    }
}

closed_label! {
    /// The tables that are written.
    Table {
        /// The immutable records.
        WalletRecords = "wallet_records",
        /// The state of wallets.
        WalletInventory = "wallet_inventory",
        /// Who may use which wallet.
        UserWalletMapping = "user_wallet_mapping",
        /// The ledger.
        Ledger = "ledger",
    }
}

closed_label! {
    /// The store's word on one item.
    Verdict {
        /// A record that was absent and is stored now.
        Stored = "stored",
        /// A record whose key stands already.
        Present = "present",
        /// A state over a lower version.
        Applied = "applied",
        /// A state that stands already.
        Same = "same",
        /// A state below the one that stands.
        Stale = "stale",
        /// A state with the version of the one that stands, and other content.
        Tie = "tie",
        /// Asked to slow down.
        Throttled = "throttled",
        /// Another writer was in the way.
        Contended = "contended",
        /// No answer, or a server's fault.
        Unavailable = "unavailable",
        /// Not allowed, or no such table.
        Refused = "refused",
        /// Refused for good.
        Rejected = "rejected",
    }
}

closed_label! {
    /// Calls to the store.
    Operation {
        /// Inserting records.
        Insert = "insert",
        /// Writing states.
        Change = "change",
        /// One transaction.
        Transact = "transact",
        /// Reading items by their keys.
        Read = "read",
        /// Reading a range.
        Query = "query",
        /// Appending to the ledger.
        Append = "append",
    }
}

closed_label! {
    /// How a call ended.
    CallResult {
        /// Answered.
        Ok = "ok",
        /// Asked to slow down.
        Throttled = "throttled",
        /// No answer in time.
        Timeout = "timeout",
        /// A server's fault, or no connection.
        Unavailable = "unavailable",
        /// Not allowed, or wrong.
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
    /// Topics that are written.
    Target {
        /// Creation requests.
        Requests = "requests",
        /// Dead letters.
        DeadLetters = "dead_letters",
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

impl ClosedLabel for crate::event::Reason {
    const ALL: &'static [Self] = &Self::ALL;

    fn name(self) -> &'static str {
        Self::name(self)
    }

    fn index(self) -> usize {
        self as usize
    }
}
