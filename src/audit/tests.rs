use super::*;
use crate::event::{Outcome, SetDigest};
use crate::ledger::{Entry, Epoch, Kept, Outcomes, StartItem};

const PARTITION: &str = "c|t|i|0|0";

/// Tables as the product leaves them: what is tampered with in them is up to the test.
#[derive(Clone, Default)]
struct World {
    kept: Vec<Kept>,
    records: Vec<KeptRecord>,
}

fn at(offset: u64) -> Position {
    Position::before_offset(offset + 1)
}

fn record(id: &str, offset: u64, pipeline: &str) -> KeptRecord {
    let digest = Digest::of(format!("{id} {offset} {pipeline}").as_bytes());
    KeptRecord {
        record_id: id.to_owned(),
        origin: format!("{PARTITION}|{offset}"),
        pipeline: pipeline.to_owned(),
        recorded_at: "2026-01-01".to_owned(),
        stored: digest,
        computed: digest,
    }
}

fn attests(entry: &mut Entry, records: &[&KeptRecord]) {
    (entry.records, entry.record_count) = (SetDigest::default(), records.len() as u64);
    records.iter().for_each(|record| entry.records.add(&record.stored));
}

impl World {
    /// A group's start item, at offset zero.
    fn begin(&mut self, group: &str) {
        let item = StartItem { starts: vec![("0".to_owned(), Position::Begin)] };
        self.kept.push(Kept::Start { key: format!("{group}|c|t|i|0"), item });
    }

    /// The chain of a group grows by an entry with these outcomes, which attests these records.
    fn grow(&mut self, group: &str, outcomes: &str, records: &[&KeptRecord]) {
        self.grow_from(Position::Begin, group, outcomes, records);
    }

    /// The same, where a chain without entries ends at `begin`.
    fn grow_from(&mut self, begin: Position, group: &str, outcomes: &str, records: &[&KeptRecord]) {
        let chain = format!("{group}|{PARTITION}|0");
        let last = self.kept.iter().rev().find_map(|kept| match kept {
            Kept::Entry { chain: of, entry, digest } if *of == chain => Some((entry.to, *digest)),
            _ => None,
        });
        let (from, previous) = last.unwrap_or((begin, Digest::of(b"")));
        let outcomes = Outcomes::parse(outcomes).unwrap();
        let mut entry = Entry {
            from,
            to: Position::before_offset(from.next_offset() + outcomes.len()),
            outcomes,
            records: SetDigest::default(),
            record_count: 0,
            fills: crate::ledger::Fills::default(),
            revision: "r".into(),
            writer: "w".into(),
            nonce: "n".into(),
            previous,
            attested_at: "2026-01-02".into(),
        };
        attests(&mut entry, records);
        let digest = entry.digest(&chain);
        self.kept.push(Kept::Entry { chain, entry: Box::new(entry), digest });
    }

    /// The entry that stands at this place, to be altered.
    fn entry(&mut self, place: usize) -> (&str, &mut Entry, &mut Digest) {
        let Kept::Entry { chain, entry, digest } = &mut self.kept[place] else { panic!("no entry") };
        (chain, entry, digest)
    }

    fn audit(&self) -> Report {
        let mut chains = Chains::default();
        // In whatever order.
        self.kept.iter().rev().cloned().for_each(|kept| chains.add(kept));
        let mut audit = chains.check();
        self.records.iter().for_each(|record| audit.record(record));
        if audit.compare() {
            self.records.iter().for_each(|record| audit.record_again(record));
        }
        audit.conclude()
    }

    /// Findings: kind, then record or offsets.
    fn found(&self) -> Vec<String> {
        let report = self.audit();
        let one = |finding: &Finding| match (&finding.record, finding.range) {
            (Some(record), _) => format!("{} {record}", finding.kind.name()),
            (None, Some((from, to))) => format!("{} {}-{}", finding.kind.name(), from.next_offset(), to.next_offset()),
            (None, None) => finding.kind.name().to_owned(),
        };
        report.findings.shown().iter().map(one).collect()
    }
}

/// Ten records a judge and a further one each, in entries of five positions; then one of other outcomes.
fn world() -> World {
    let mut world = World::default();
    world.begin("g");
    for first in [0, 5] {
        let judges: Vec<_> = (first..first + 5).map(|n| record(&format!("s|{n}"), n, "p")).collect();
        let further: Vec<_> = (first..first + 5).map(|n| record(&format!("s|{n}|more"), n, "p")).collect();
        let all: Vec<&KeptRecord> = judges.iter().chain(&further).collect();
        world.grow("g", "r5", &all);
        world.records.extend(judges);
        world.records.extend(further);
    }
    world.grow("g", "d1 xs2 s1 h1 l1", &[]);
    world
}

fn remove(world: &mut World, id: &str) {
    let before = world.records.len();
    world.records.retain(|record| record.record_id != id);
    assert_eq!(world.records.len() + 1, before);
}

fn the(world: &mut World, id: &str) -> usize {
    world.records.iter().position(|record| record.record_id == id).unwrap()
}

#[test]
fn what_the_product_leaves_is_sound() {
    let mut world = world();
    world.records.push(record("s|99", 99, "p"));
    let report = world.audit();
    assert_eq!(world.found(), Vec::<String>::new());
    let expected = Counts { chains: 1, entries: 3, positions: 16, records: 21, in_flight: 1, ..Counts::default() };
    assert_eq!(report.counts, expected);
}

#[test]
fn a_missing_record_is_named_by_entry_and_offset() {
    let mut one = world();
    remove(&mut one, "s|7");
    assert_eq!(one.found(), ["records_missing 5-10"]);
    assert!(one.audit().findings.shown()[0].detail.ends_with("no record of offsets 7"), "{:?}", one.audit().findings);
    let mut further = world();
    remove(&mut further, "s|7|more");
    assert_eq!(further.found(), ["records_missing 5-10"]);
    assert!(further.audit().findings.shown()[0].detail.contains("further records"));
    let mut all = world();
    all.records.clear();
    assert_eq!(all.found(), ["records_missing 0-5", "records_missing 5-10"]);
}

#[test]
fn an_altered_record_is_named_and_nothing_else() {
    let other = Digest::of(b"other");
    let mut content = world();
    let at = the(&mut content, "s|3");
    content.records[at].computed = other;
    assert_eq!(content.found(), ["record_altered s|3"]);
    let mut digest = world();
    digest.records[at].stored = other;
    assert_eq!(digest.found(), ["record_altered s|3"]);
    let mut origin = world();
    origin.records[at].computed = other;
    origin.records[at].origin = format!("{PARTITION}|8");
    assert_eq!(origin.found(), ["record_altered s|3"]);
    let mut nowhere = world();
    nowhere.records[at].computed = other;
    nowhere.records[at].origin = "c|elsewhere|i|0|0|3".into();
    assert_eq!(nowhere.found(), ["record_altered s|3"]);
}

#[test]
fn a_record_altered_together_with_its_digest_is_found_by_its_entry() {
    let mut world = world();
    let at = the(&mut world, "s|3|more");
    let other = Digest::of(b"other");
    (world.records[at].stored, world.records[at].computed) = (other, other);
    assert_eq!(world.found(), ["records_differ 0-5"]);
}

#[test]
fn a_record_that_nobody_attests_is_foreign() {
    let mut world = world();
    world.records.push(record("s|forged", 3, "p"));
    world.records.push(record("s|nowhere", 3, "p"));
    world.records.last_mut().unwrap().origin = "c|t|j|0|0|3".into();
    let mut found = world.found();
    found.sort();
    assert_eq!(found, ["record_foreign s|forged", "record_foreign s|nowhere"]);
    let mut below = World::default();
    let item = StartItem { starts: vec![("0".to_owned(), at(4))] };
    below.kept.push(Kept::Start { key: "g|c|t|i|0".to_owned(), item });
    let own = record("s|5", 5, "p");
    below.grow_from(at(4), "g", "r1", &[&own]);
    below.records.extend([own, record("s|early", 3, "p")]);
    assert_eq!(below.found(), ["record_foreign s|early"]);
    // Where the first entry was taken away, that alone is told.
    let mut cut = self::world();
    cut.kept.remove(1);
    assert_eq!((cut.found(), cut.audit().counts.in_gaps), (vec!["beginning 5-10".to_owned()], 10));
}

#[test]
fn an_unreadable_record_is_named_and_its_entry_is_not() {
    let mut world = world();
    remove(&mut world, "s|2");
    let mut chains = Chains::default();
    world.kept.iter().cloned().for_each(|kept| chains.add(kept));
    let mut audit = chains.check();
    world.records.iter().for_each(|record| audit.record(record));
    audit.unreadable_record("s|2", Some(&format!("{PARTITION}|2")), "fields is missing");
    assert!(audit.compare());
    world.records.iter().for_each(|record| audit.record_again(record));
    let report = audit.conclude();
    assert_eq!(report.findings.shown().len(), 1, "{:?}", report.findings);
    assert_eq!(report.findings.count(Kind::RecordUnreadable), 1);
}

#[test]
fn an_edited_entry_is_named_and_nothing_else() {
    let mut edited = world();
    *edited.entry(2).1 = Entry { to: at(11), ..edited.entry(2).1.clone() };
    assert_eq!(edited.found(), ["entry_altered 5-12"]);
    let mut outcomes = world();
    outcomes.entry(2).1.outcomes = Outcomes::parse("r4 d1").unwrap();
    assert_eq!(outcomes.found(), ["entry_altered 5-10"]);
    let mut digest = world();
    *digest.entry(2).2 = Digest::of(b"other");
    assert_eq!(digest.found(), ["entry_altered 5-10"]);
}

/// Its digest made anew: the entry after it names another one, and what it attests is not there.
#[test]
fn an_entry_that_was_made_anew_is_found_by_the_next_one() {
    let mut world = world();
    let (chain, entry, digest) = world.entry(1);
    entry.writer = "somebody".into();
    *digest = entry.digest(chain);
    assert_eq!(world.found(), ["link 5-10"]);
    let mut short = self::world();
    let (chain, entry, digest) = short.entry(3);
    entry.outcomes = Outcomes::parse("d1 xs2").unwrap();
    *digest = entry.digest(chain);
    assert_eq!(short.found(), ["entry_altered 10-16"]);
}

#[test]
fn gaps_overlaps_and_lost_beginnings_are_named() {
    let mut gap = world();
    gap.kept.remove(2);
    assert_eq!(gap.found(), ["gap 5-10"]);
    assert_eq!(gap.audit().counts.in_gaps, 10);
    let mut beginning = world();
    beginning.kept.remove(1);
    assert_eq!(beginning.found()[0], "beginning 5-10");
    let mut without_start = beginning.clone();
    without_start.kept.remove(0);
    assert_eq!(without_start.found()[0], "beginning 5-10");
    let mut overlap = world();
    let mut forged = overlap.clone();
    let (chain, entry, digest) = forged.entry(2);
    (entry.from, entry.to, entry.outcomes) = (at(6), at(8), Outcomes::parse("r2").unwrap());
    *digest = entry.digest(chain);
    overlap.kept.push(forged.kept[2].clone());
    assert_eq!(overlap.found(), ["overlap 7-9"]);
    let mut garbled = world();
    let Kept::Entry { chain, entry, .. } = garbled.kept.remove(2) else { panic!("no entry") };
    garbled.kept.push(Kept::Garbled { key: chain, from: entry.from.sort_key(), what: "w".into() });
    assert_eq!(garbled.found(), ["entry_unreadable"]);
}

/// A store that refused an effect for good, an instance that died before it attested, an order over what it had stored, and a
/// later mapping's further record.
#[test]
fn records_that_no_entry_attests_by_right_are_no_fault() {
    let mut world = world();
    let rejected = [record("s|20", 16, "p"), record("s|21", 17, "p")];
    world.grow("g", "xr2 r1 xs1 s1", &[&rejected[0], &rejected[1], &record("s|22", 18, "p")]);
    world.records.extend(rejected);
    world.records.push(record("s|22", 18, "p"));
    world.records.push(record("s|23", 19, "p"));
    world.records.push(record("s|24", 20, "p"));
    let mut late = record("s|7|added", 7, "p");
    late.recorded_at = "2026-01-03".into();
    world.records.push(late);
    let mut found = world.found();
    found.sort();
    assert_eq!(found, ["unattested s|23", "unattested s|24", "unattested s|7|added"]);
    assert!(!world.audit().findings.has_fault());
    assert_eq!(world.audit().counts.unattested, 3);
}

/// Of one class the entry attests some and others not: their clocks do not tell, each choice is tried.
#[test]
fn the_attested_ones_among_records_of_one_class_are_found() {
    let mut world = world();
    let records: Vec<_> = (16..22).map(|n| record(&format!("s|{n}"), n, "p")).collect();
    world.grow("g", "xs3 xr3", &[&records[0], &records[2], &records[4]]);
    world.records.extend(records);
    let mut found = world.found();
    found.sort();
    assert_eq!(found, ["unattested s|17", "unattested s|19", "unattested s|21"]);
}

/// Two groups read one topic by pipelines that make records of their own.
#[test]
fn each_groups_chain_attests_its_own_records() {
    let mut world = world();
    world.begin("h");
    let own: Vec<_> = (0..5).map(|n| record(&format!("s|{n}|theirs"), n, "q")).collect();
    let shared: Vec<_> = (0..5).map(|n| record(&format!("s|{n}"), n, "p")).collect();
    world.grow("h", "r5", &own.iter().chain(&shared).collect::<Vec<_>>());
    world.records.extend(own);
    assert_eq!(world.found(), Vec::<String>::new());
    remove(&mut world, "s|3|theirs");
    assert_eq!(world.found(), ["records_missing 0-5"]);
    remove(&mut world, "s|3");
    assert_eq!(world.found(), ["records_missing 0-5", "records_missing 0-5"]);
}

/// A redrive keeps a chain over the dead-letter topic, whose entries attest the records of positions that the group's own chain calls
/// dead letters.
#[test]
fn a_redrive_attests_the_records_of_the_letters_that_it_fills() {
    const LETTERS: &str = "c|letters|j|0|2";
    let mut world = world();
    let redriven = [record("s|11", 11, "p"), record("s|12", 12, "p")];
    let chain = format!("g/redrive/one|{LETTERS}|0");
    let mut entry = {
        let (_, entry, _) = world.entry(1);
        entry.clone()
    };
    let outcomes = Outcomes::parse("s1 r2 xs1").unwrap();
    (entry.from, entry.to, entry.outcomes, entry.previous) = (Position::Begin, at(3), outcomes, Digest::of(b""));
    for record in &redriven {
        entry.fills.push(&crate::event::Origin::parse(&record.origin).unwrap());
    }
    attests(&mut entry, &redriven.iter().collect::<Vec<_>>());
    let digest = entry.digest(&chain);
    world.kept.push(Kept::Entry { chain, entry: Box::new(entry), digest });
    world.records.extend(redriven);
    assert_eq!(world.found(), Vec::<String>::new());
    let mut missing = world.clone();
    remove(&mut missing, "s|12");
    assert_eq!(missing.found(), ["records_missing 0-4"]);
    let mut altered = world.clone();
    let last = altered.records.last_mut().unwrap();
    (last.stored, last.computed) = (Digest::of(b"other"), Digest::of(b"other"));
    assert_eq!(altered.found(), ["records_differ 0-4"]);
    // What the run does not say it filled, nobody attests.
    let (chain, entry, digest) = world.entry(4);
    entry.fills = crate::ledger::Fills::default();
    *digest = entry.digest(chain);
    let mut found = world.found();
    found.sort();
    assert_eq!(found, ["records_missing 0-4", "unattested s|11", "unattested s|12"]);
}

/// What is wrong with a chain that was left behind is on record; its successor begins where the order says.
#[test]
fn a_chain_left_behind_is_on_record_and_its_successor_counts() {
    let mut world = world();
    let (chain, entry, digest) = world.entry(2);
    entry.writer = "somebody".into();
    let (old, first, last) = (chain.to_owned(), entry.clone(), *digest);
    let key = format!("g|{PARTITION}|1");
    let mut anew = Entry { previous: Digest::of(b""), ..first };
    anew.writer = "w".into();
    let epoch = Epoch {
        number: 1,
        begin: anew.from,
        previous: last,
        reason: "r".into(),
        taken_over: false,
        writer: "w".into(),
        nonce: "n".into(),
    };
    let digest = anew.digest(&key);
    let mut unordered = world.clone();
    let entry = Kept::Entry { chain: key.clone(), entry: Box::new(anew.clone()), digest };
    world.kept.push(entry.clone());
    world.kept.push(Kept::Epoch { key: format!("g|{PARTITION}"), epoch });
    world.kept.push(Kept::Broken { chain: old, reason: "edited".into() });
    let mut found = world.found();
    found.sort();
    assert_eq!(found, ["on_record", "on_record 5-10"]);
    assert!(!world.audit().findings.has_fault());
    remove(&mut world, "s|7");
    assert_eq!(world.found().iter().filter(|found| *found == "records_missing 5-10").count(), 1);
    unordered.kept.push(entry);
    assert!(unordered.found().contains(&"beginning 5-10".to_owned()), "{:?}", unordered.found());
}

/// A run that is taken up while the table is read: its epoch and the seal before it come where the reading had passed.
#[test]
fn what_was_written_behind_the_reading_is_looked_up() {
    let lineage = format!("g|{PARTITION}");
    let mut world = world();
    let (chain, last, digest) = world.entry(3);
    let (chain, last, digest) = (chain.to_owned(), last.clone(), *digest);
    let asked = |world: &World| {
        let mut chains = Chains::default();
        world.kept.iter().cloned().for_each(|kept| chains.add(kept));
        chains.passed_by()
    };
    assert_eq!(asked(&world), []);
    let key = format!("{lineage}|1");
    let to = Position::before_offset(last.to.next_offset() + 1);
    let mut outcomes = Outcomes::default();
    outcomes.push(Outcome::Duplicate, 1);
    let anew = Entry {
        from: last.to,
        to,
        outcomes,
        previous: Digest::of(b""),
        records: SetDigest::default(),
        record_count: 0,
        ..last.clone()
    };
    let digest_anew = anew.digest(&key);
    world.kept.push(Kept::Entry { chain: key, entry: Box::new(anew), digest: digest_anew });
    assert_eq!(asked(&world), [(format!("epoch#{lineage}"), None)]);
    let epoch = Epoch {
        number: 1,
        begin: last.to,
        previous: digest,
        reason: "taken over".into(),
        taken_over: true,
        writer: "w".into(),
        nonce: "n".into(),
    };
    world.kept.push(Kept::Epoch { key: lineage, epoch });
    assert_eq!(asked(&world), [(chain.clone(), Some(last.from))]);
    world.kept.push(Kept::Seal { chain, at: last.to });
    assert_eq!(asked(&world), []);
    assert_eq!(world.found(), Vec::<String>::new());
}

/// A chain that was taken over ends where its seal stands, and is as sound as any other.
#[test]
fn a_sealed_chain_is_audited_and_ends_where_its_seal_stands() {
    let mut world = world();
    let (chain, entry, digest) = world.entry(3);
    let (chain, at, last) = (chain.to_owned(), entry.to, *digest);
    let epoch = Epoch {
        number: 1,
        begin: at,
        previous: last,
        reason: "taken over".into(),
        taken_over: true,
        writer: "w".into(),
        nonce: "n".into(),
    };
    world.kept.push(Kept::Epoch { key: format!("g|{PARTITION}"), epoch });
    world.kept.push(Kept::Seal { chain, at });
    assert_eq!(world.found(), Vec::<String>::new());

    let mut left = world.clone();
    for kept in &mut left.kept {
        if let Kept::Epoch { epoch, .. } = kept {
            *epoch = Epoch {
                begin: Position::before_offset(5),
                previous: Digest::of(b"lower"),
                taken_over: false,
                ..epoch.clone()
            };
        }
    }
    assert_eq!(left.found(), Vec::<String>::new(), "an operator's epoch may begin anywhere below");

    let mut edited = world.clone();
    edited.entry(2).1.writer = "somebody".into();
    assert!(edited.audit().findings.has_fault(), "unlike a chain that was left behind, it is no wreck");
    let mut behind = world.clone();
    behind.grow("g", "s1", &[]);
    assert_eq!(behind.found(), ["overlap 16-17"]);
    let mut cut = world.clone();
    cut.kept.remove(3);
    assert_eq!(cut.found(), ["gap 10-16"]);
    let mut unsealed = world.clone();
    unsealed.kept.pop();
    assert_eq!(unsealed.found(), ["chain_cut"]);
    let mut emptied = world.clone();
    emptied.kept.retain(|kept| !matches!(kept, Kept::Entry { .. }));
    assert!(emptied.found().contains(&"chain_cut".to_owned()), "{:?}", emptied.found());
    let (chain, entry, digest) = world.entry(3);
    entry.writer = "somebody".into();
    *digest = entry.digest(chain);
    assert_eq!(world.found(), ["link 10-16"]);
}

/// As far as entries follow one another from where the chain begins.
#[test]
fn a_sound_prefix_ends_before_the_first_entry_that_does_not_fit() {
    let end = |world: &World| {
        let mut prefix = SoundPrefix::new(format!("g|{PARTITION}|0"), Position::Begin);
        world.kept[1..].iter().for_each(|kept| prefix.extend(kept));
        prefix.end.next_offset()
    };
    assert_eq!(end(&world()), 16);
    let mut edited = world();
    edited.entry(2).1.writer = "somebody".into();
    assert_eq!(end(&edited), 5);
    let mut gap = world();
    gap.kept.remove(2);
    assert_eq!(end(&gap), 5);
    let mut beginning = world();
    beginning.kept.remove(1);
    assert_eq!(end(&beginning), 0);
    let mut anew = world();
    let (chain, entry, digest) = anew.entry(1);
    entry.writer = "somebody".into();
    *digest = entry.digest(chain);
    assert_eq!(end(&anew), 5);
}
