//! The rules of the protocol, each of which can be switched off.

/// Not kept, it leads to a state that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All that is not known as done is done in full, whoever stored the record.
    DoAll,
    /// Identities are remembered only after their effects.
    RememberLast,
    /// Dead letters are acknowledged before the ledger entry.
    LettersFirst,
    /// The checkpoint comes after the ledger entry.
    AttestFirst,
    /// An append is conditional on where the ledger ends.
    Fence,
    /// A refused append reads the end again and goes on.
    Reread,
    /// A lane starts at the lower of checkpoint and ledger end, not at the checkpoint alone.
    StartLower,
    /// A lane never starts above the ledger's end.
    StartBelow,
    /// The content digest is over what was sent, not over what a mapping made of it.
    DigestOfContent,
    /// Replays write to ledgers of their own.
    OwnLedger,
    /// Repairs do not ask the cache.
    RepairUnasked,
    /// Batches of a lane are judged in order.
    JudgeInOrder,
    /// A tie changes no outcome.
    TieIsNothing,
    /// Each group of a state has a version of its own.
    VersionByGroup,
    /// Only a replay with all effects remembers.
    WholeReplayRemembers,
    /// What retention took away is attested as lost.
    LossIsAttested,
    /// Of several events of one identity in a batch, all but the first are judged by the record that stands.
    JudgedByRecord,
    /// A lane opens the chain of the last epoch.
    LastEpoch,
    /// The chain of each epoch has a key of its own.
    OwnChain,
    /// A new epoch begins where the chain that it leaves behind is sound.
    SoundBegin,
    /// Whoever takes a run up seals its chain.
    Seal,
    /// A seal that is refused is set again, where the chain ends by now.
    SealAgain,
    /// Whoever takes a run up goes on in the next epoch.
    NextEpoch,
    /// That epoch begins where the sealed chain ends.
    BeginAtSeal,
    /// Of two that begin the same epoch one is refused.
    EpochOnce,
    /// A run's lane opens only in the epoch that its process holds.
    TokenHeld,
}
