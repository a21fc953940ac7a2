//! What the protocol makes of one event, whoever reads it.

use std::sync::LazyLock;

use recordkeeper::dedupe::Known;
use recordkeeper::event::{Digest, Outcome, Reason};
use recordkeeper::pipeline::protocol::{self, Settled, Verdict};
use recordkeeper::store::Standing;

use crate::rules::Rule;
use crate::world::{ELSEWHERE, Fate, Group, Item, LETTER, REQUEST, Record, Remembered, State, World};

/// Digests and stored forms of everything that is compared, made once.
struct Forms {
    digests: Vec<Digest>,
    origins: Vec<String>,
    standing: Vec<Vec<Standing>>,
    known: Vec<Vec<Known>>,
}

static FORMS: LazyLock<Forms> = LazyLock::new(|| {
    let digests: Vec<Digest> = (0..8u8).map(|content| Digest::of(&[content])).collect();
    let origins: Vec<String> = (0..=ELSEWHERE).map(|origin| format!("cluster|topic|id|0|0|{origin}")).collect();
    let standing = |digest: &Digest, origin: &String| Standing {
        content_digest: *digest,
        origin: origin.clone(),
        record_digest: *digest,
        corrects: None,
    };
    let known = |digest: &Digest, origin: &String| Known { content_digest: *digest, origin: origin.clone() };
    Forms {
        standing: digests
            .iter()
            .map(|digest| origins.iter().map(|origin| standing(digest, origin)).collect())
            .collect(),
        known: digests.iter().map(|digest| origins.iter().map(|origin| known(digest, origin)).collect()).collect(),
        digests,
        origins,
    }
});

impl World {
    /// An event after decode, classify, validate, map, and the look-up.
    pub fn prepared(&self, s: &State, revision: u8, at: u8, attested: Option<Outcome>, asks: bool) -> Item {
        let mapped = self.effects(revision, at).is_some();
        let mut fate = if mapped { Fate::Open } else { Fate::Refused(Reason::Schema) };
        if let Some(attested) =
            attested.filter(|attested| protocol::repair(*attested, mapped) == protocol::Repair::Leave)
        {
            fate = Fate::Left(attested);
        }
        if let (true, Fate::Open, Some(known)) = (asks, fate, s.cache[usize::from(self.event(at).id)]) {
            let digest = &FORMS.digests[usize::from(self.content(at, revision))];
            let origin = &FORMS.origins[usize::from(at)];
            let known = &FORMS.known[usize::from(known.content)][usize::from(known.origin)];
            if protocol::known_is_duplicate(digest, origin, known) {
                fate = Fate::Left(Outcome::Duplicate);
            }
        }
        let mut item = Item { position: at, attested, fate, open: 0 };
        item.open = self.owes(&item, revision);
        item
    }

    /// What the content digest of an event is over.
    pub fn content(&self, at: u8, revision: u8) -> u8 {
        self.event(at).content + if self.off(Rule::DigestOfContent) { 2 * revision } else { 0 }
    }

    /// What is to be done for an event, given its fate.
    pub fn owes(&self, item: &Item, revision: u8) -> u8 {
        match item.fate {
            Fate::Open | Fate::Left(_) => 0,
            Fate::Own { stored: false } | Fate::Copy if self.off(Rule::DoAll) => 0,
            Fate::Own { .. } | Fate::Copy => self.effects(revision, item.position).unwrap_or_default().bits(),
            Fate::Refused(_) if self.off(Rule::LettersFirst) => 0,
            Fate::Refused(_) => {
                if protocol::letter_goes_out(item.attested) {
                    LETTER
                } else {
                    0
                }
            }
        }
    }

    /// The verdict on an event by the record that stands.
    pub fn judged(&self, item: &Item, record: Record, revision: u8) -> Fate {
        let digest = &FORMS.digests[usize::from(self.content(item.position, revision))];
        let origin = &FORMS.origins[usize::from(item.position)];
        let standing = &FORMS.standing[usize::from(record.content)][usize::from(record.origin)];
        match protocol::verdict(digest, &[], origin, standing) {
            Verdict::Recorded { .. } => Fate::Own { stored: false },
            Verdict::Duplicate => Fate::Copy,
            // Nobody corrects events here.
            Verdict::Corrected => Fate::Left(Outcome::Duplicate),
            Verdict::Conflict => Fate::Refused(Reason::Conflict),
        }
    }

    /// Carries one effect out, and takes it off what the item owes.
    pub fn apply(&self, t: &mut State, item: &mut Item, effect: u8, revision: u8) {
        item.open &= !effect;
        let id = self.event(item.position).id;
        match effect {
            REQUEST => t.sent |= 1 << id,
            LETTER => t.letters |= 1 << item.position,
            _ => {
                let group = effect.trailing_zeros() as usize;
                let version = self.effects(revision, item.position).unwrap_or_default().groups[group];
                let standing = if self.off(Rule::VersionByGroup) {
                    t.groups.iter().map(|group| group.version).max().unwrap_or(0)
                } else {
                    t.groups[group].version
                };
                if version > standing {
                    t.groups[group] = Group { version, id };
                } else if version == standing && t.groups[group].id != id && self.off(Rule::TieIsNothing) {
                    item.fate = Fate::Refused(Reason::Rejected);
                    item.open = LETTER;
                }
            }
        }
    }

    /// Remembers an event that is done.
    pub fn remember(&self, t: &mut State, item: &Item, revision: u8) {
        let id = usize::from(self.event(item.position).id);
        if let (Fate::Own { .. } | Fate::Copy, Some(record)) = (item.fate, t.records[id]) {
            t.cache[id] = Some(Remembered { content: record.content, origin: record.origin, revision });
        }
    }
}

/// What became of an event that nothing more is to be done for.
pub fn settled(item: &Item) -> Outcome {
    let settled = match item.fate {
        Fate::Own { .. } => Settled::Own,
        Fate::Copy => Settled::Copy,
        Fate::Left(outcome) => Settled::Left(outcome),
        Fate::Refused(reason) => Settled::Refused(reason),
        Fate::Open => unreachable!("a batch went on without a verdict"),
    };
    protocol::outcome(item.attested, settled)
}
