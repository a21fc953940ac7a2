//! Stub.
/// a
#[derive(Clone, Copy, Debug)]
pub enum Alert {
    /// a
    StalledPartition,
    /// a
    Conflict,
    /// a
    Tie,
    /// a
    DeadLetterTopic,
    /// a
    LogBehindLedger,
    /// a
    IgnoredReset,
    /// a
    RetentionGap,
    /// a
    LedgerRefused,
}
/// a
pub fn alert(_: Alert, _: &str) {}
/// now
pub fn now() -> String {
    String::new()
}
/// a
#[derive(Clone)]
pub struct Heartbeat;
impl Heartbeat {
    /// a
    pub fn touch(&self) {}
}
/// a
#[derive(Clone)]
pub struct Readiness;
impl Readiness {
    /// a
    pub fn set(&self, _: &str, _: Result<(), String>) {}
}
