#!/usr/bin/env python3
"""Breaks a rule of the delivery protocol in the product's own code, one at a time, and shows that the tests notice.

    tests/mutations.py [NAME...]

Works on a clean checkout, whose source files it changes and restores. Each mutation must match the code exactly once, so that
one that no longer fits is an error and not a silent pass. Ends with 1 where a mutation survives.
"""
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

# name: (file, code, broken code)
MUTATIONS = {
    "effects are left to the delivery that stored the record": (
        "src/pipeline/judge.rs",
        "Fate::Live { mapped, standing, own: true, repeated, written: false }",
        "Fate::Live { mapped, standing, own: true, repeated, written: true }",
    ),
    "ids are remembered before their effects": (
        "src/pipeline/batch.rs",
        "    apply(parts, batch, &mut items, &mut tally, ",
        "    remember(parts, &items).await;\n    apply(parts, batch, &mut items, &mut tally, ",
    ),
    "a batch is attested without its dead letters": (
        "src/pipeline/apply.rs",
        "        letters(parts, batch, view, &refused),\n",
        "        async {},\n",
    ),
    "the checkpoint comes before the ledger entry": (
        "src/pipeline/protocol.rs",
        "    processed.min(ledger_end)\n",
        "    processed.max(ledger_end)\n",
    ),
    "a refused append stops its lane": (
        "src/engine/attester.rs",
        "                        extend(lane, end.digest, end.position);\n",
        "                        let _ = end;\n",
    ),
    "a lane starts at the checkpoint alone": (
        "src/pipeline/protocol.rs",
        "checkpoint.max(ledger_begin).min(ledger_end))",
        "checkpoint.max(ledger_begin))",
    ),
    "a lane starts above the ledger's end": (
        "src/pipeline/protocol.rs",
        "checkpoint.max(ledger_begin).min(ledger_end))",
        "checkpoint.max(ledger_end))",
    ),
    "the cache is asked during repair": (
        "src/pipeline/protocol.rs",
        "pub fn asks_cache(purpose: Purpose, attested: Option<Outcome>) -> bool {\n    purpose == Purpose::Live && attested.is_none()",
        "pub fn asks_cache(_: Purpose, _: Option<Outcome>) -> bool {\n    true",
    ),
    "the cache settles this very delivery": (
        "src/pipeline/protocol.rs",
        "known.content_digest == *content_digest && known.origin != origin",
        "known.content_digest == *content_digest && !origin.is_empty()",
    ),
    "a later batch is judged before an earlier one": (
        "src/pipeline/batch.rs",
        "    gates.judge.wait(ticket).await;\n",
        "",
    ),
    "a later batch is applied before an earlier one": (
        "src/pipeline/batch.rs",
        "    gates.apply.wait(ticket).await;\n",
        "",
    ),
    "a tie changes the outcome": (
        "src/pipeline/apply.rs",
        "            states.changes.push((folded.event, verdict));\n",
        "            if verdict == Changed::Tie {\n                states.rejected.push((folded.event, String::new()));\n            }\n"
        "            states.changes.push((folded.event, verdict));\n",
    ),
    "keys are not escaped": (
        "src/event/ids.rs",
        'out.push_str("%7C");',
        'out.push_str("|");',
    ),
    "one version for all groups of a state": (
        "src/pipeline/fold.rs",
        "places.entry((&write.key, write.group))",
        "places.entry((&write.key, Group::Mapping))",
    ),
    "verdicts inside a batch are taken from each other": (
        "src/pipeline/judge.rs",
        "        Fate::Refused(_) => leader.conflicting.clone(),\n",
        "        Fate::Refused(_) => leader.content_digest.map(|content_digest| Standing {\n"
        "            content_digest,\n            origin: leader.origin_text.clone(),\n            record_digest: content_digest,\n            corrects: None,\n        }),\n",
    ),
    "what the ledger holds does not stay": (
        "src/pipeline/protocol.rs",
        "    attested.unwrap_or(match settled {",
        "    attested.filter(|_| false).unwrap_or(match settled {",
    ),
    "a lost assignment goes on checkpointing": (
        "src/source/kafka/reader.rs",
        "order.done.filter(|(assignment, _)| *assignment == slot.number)",
        "order.done.filter(|_| true)",
    ),
    "a batch is attested without its requests": (
        "src/pipeline/apply.rs",
        "        requests(parts, view),\n",
        "        async { Requests { acknowledged: 0, rejected: Vec::new() } },\n",
    ),
    "a batch is begun above one that a drain let go of": (
        "src/engine/intake.rs",
        "        if self.mode == Mode::Drain {\n            self.queued.clear();\n",
        "        if self.mode == Mode::Drain {\n            self.queued.pop_front();\n",
    ),
    "a replay without all effects remembers": (
        "src/pipeline/protocol.rs",
        "        self.effects() == Effects::All\n",
        "        true\n",
    ),
    "a replay asks the cache": (
        "src/pipeline/protocol.rs",
        "    purpose == Purpose::Live && attested.is_none()\n",
        "    attested.is_none()\n",
    ),
    "a corrected event conflicts with what it corrects": (
        "src/pipeline/protocol.rs",
        " || corrects.contains(&standing.content_digest);",
        ";",
    ),
    "a corrected event comes again uncorrected and conflicts": (
        "src/pipeline/protocol.rs",
        "    if !same && standing.corrects.as_ref() == Some(content_digest) {",
        "    if false {",
    ),
    "a partition that is stuck stops the others": (
        "src/engine/coordinator.rs",
        "let may_hold_more = owned.bytes == 0 || (room",
        "let may_hold_more = (room",
    ),
    "a poisoned lane keeps what it will not begin": (
        "src/engine/lane.rs",
        "                freed = intake.close();\n",
        "",
    ),
    "a run is taken over and its chains are not sealed": (
        "src/ledger/fence.rs",
        "            if sealed.await? {\n",
        "            drop(sealed);\n            if true {\n",
    ),
    "messages of a topic made anew are taken for the old one's": (
        "src/source/kafka/watch.rs",
        "if at_work && consumer.context().reads_another_log(",
        "if false && consumer.context().reads_another_log(",
    ),
    "a checkpoint in the old log is followed in the new one": (
        "src/engine/open.rs",
        "            let replaced = item.is_some_and(|item| item.starts.is_empty());\n",
        "            let replaced = item.is_some_and(|_| false);\n",
    ),
    "a log that replaces another one counts as the first": (
        "src/ledger/dynamodb.rs",
        "            Ok(!logs.iter().all(known))\n",
        "            Ok(logs.is_empty() && logs.iter().all(known))\n",
    ),
    "anybody releases a lock": (
        "src/lock.rs",
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL'",
        "if redis.call('GET', KEYS[1]) then return redis.call('DEL'",
    ),
}

# The first that notices is enough.
SUITES = {
    "simulation": ["--test", "simulation", "--", "nothing"],
    "unit": ["--lib", "--", "pipeline::", "engine::", "source::", "event::ids"],
    "model": ["--test", "model"],
    "locks and logs": ["--test", "it", "--", "lock::", "replaced_log::"],
}


# Far more than a sound suite takes: a mutation that hangs is noticed too.
SECONDS_MAX = 300


def run(suite):
    command = ["cargo", "test", "--locked", "--quiet", *SUITES[suite]]
    tests = command.index("--") if "--" in command else len(command)
    built = subprocess.run(command[:tests] + ["--no-run"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if built.returncode:
        sys.exit(built.stdout + "\nit does not build")
    # A group of its own, so that a test that hangs is ended with it.
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = running.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        return True, "hangs"
    why = [line for line in said.splitlines() if line.startswith("seed ") or "is not missed" in line or "attested as" in line]
    return running.returncode != 0, why[0] if why else ""


def main():
    names = sys.argv[1:] or list(MUTATIONS)
    if subprocess.run(["git", "diff", "--quiet", "--", "src"], cwd=ROOT).returncode:
        sys.exit("src/ holds changes: commit them first")
    for suite in SUITES:
        if run(suite)[0]:
            sys.exit(f"{suite} fails without any mutation")
    survivors = []
    for name in names:
        file, code, broken = MUTATIONS[name]
        path = ROOT / file
        sound = path.read_text()
        if sound.count(code) != 1:
            sys.exit(f"{name}: its code stands {sound.count(code)} times in {file}")
        since = time.monotonic()
        noticed = None
        try:
            path.write_text(sound.replace(code, broken))
            for suite in SUITES:
                missed, why = run(suite)
                if missed:
                    noticed = f"{suite}: {why}" if why else suite
                    break
        finally:
            path.write_text(sound)
        if not noticed:
            survivors.append(name)
        print(f"{name}\n    {noticed or 'SURVIVES'} [{time.monotonic() - since:.0f} s]", flush=True)
    sys.exit(1 if survivors else 0)


main()
