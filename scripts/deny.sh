#!/usr/bin/env bash
# Checks the dependencies against deny.toml: licences, sources and bans always; advisories where their database can be
# fetched from GitHub, and it is said where not. Builds cargo-deny into target/tools once (about 5 minutes of CPU).
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
tools=${CARGO_TARGET_DIR:-target}/tools
deny=$tools/bin/cargo-deny
if ! "$deny" --version 2>/dev/null | grep -qx "cargo-deny $version"; then
    if [[ $(command -v cargo-deny >/dev/null && cargo-deny --version) == "cargo-deny $version" ]]; then
        deny=$(command -v cargo-deny)
    else
        echo "deny: building cargo-deny $version into $tools" >&2
        cargo install cargo-deny --version "$version" --locked --quiet --root "$tools" --target-dir "$tools/build"
        rm -rf "$tools/build"
    fi
fi

"$deny" --locked check bans licenses sources

# Fetching is told apart from checking: no network must not pass for no advisory, and no advisory must not hide in a failed
# fetch.
if fetched=$(timeout 120 "$deny" --locked fetch db 2>&1); then
    "$deny" --locked check --disable-fetch advisories
else
    echo "deny: ADVISORIES NOT CHECKED: their database could not be fetched:" >&2
    tail -n 3 <<<"$fetched" >&2
fi
