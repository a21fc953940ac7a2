#!/usr/bin/env bash
# Installs what is missing on a Debian machine, and says what and why; does nothing where all is there.
#
#   scripts/prepare.sh build    what `cargo build` needs
#   scripts/prepare.sh test     that, and what the tests start or call
set -euo pipefail

what=${1:-build}
missing=()
need() { # COMMAND PACKAGE REASON
    command -v "$1" >/dev/null || wanted "$2" "$3"
}
wanted() { # PACKAGE REASON
    missing+=("$1")
    echo "prepare: $1 is missing: $2" >&2
}

case $what in build | test) ;; *) echo "usage: scripts/prepare.sh build|test" >&2 && exit 2 ;; esac

need cc gcc "compiles the C parts of crates"
need g++ g++ "compiles librdkafka and aws-lc"
need cmake cmake "configures librdkafka and aws-lc"
need make make "builds librdkafka"
need pkg-config pkg-config "finds OpenSSL and zlib"
# https://github.com/confluentinc/librdkafka/issues/5135
curl="librdkafka includes its headers, also where it is built without curl"
if command -v pkg-config >/dev/null; then
    pkg-config --exists openssl || wanted libssl-dev "TLS of librdkafka"
    pkg-config --exists zlib || wanted zlib1g-dev "compression of librdkafka"
    pkg-config --exists libcurl || wanted libcurl4-openssl-dev "$curl"
else
    wanted libssl-dev "TLS of librdkafka"
    wanted zlib1g-dev "compression of librdkafka"
    wanted libcurl4-openssl-dev "$curl"
fi
if [[ $what == test ]]; then
    need java openjdk-17-jre-headless "runs the Kafka brokers of the tests"
    need mvn maven "fetches the Kafka brokers of the tests"
    need redis-server redis-server "runs in the tests of the dedupe cache"
    need python3 python3 "recomputes the manifests of generated events"
fi

if ! command -v cargo >/dev/null; then
    echo "prepare: cargo is missing: install a Rust toolchain (https://rustup.rs), then run this again" >&2
    exit 1
fi
((${#missing[@]})) || exit 0

by_hand() {
    echo "prepare: $1; install by hand: ${missing[*]}" >&2
    exit 1
}
command -v apt-get >/dev/null || by_hand "there is no apt-get here"
as_root=()
if ((EUID != 0)); then
    command -v sudo >/dev/null || by_hand "not root, and there is no sudo"
    # Without a terminal nobody can type a password.
    if [[ -t 0 ]]; then as_root=(sudo); else as_root=(sudo -n); fi
    "${as_root[@]}" true || by_hand "not root, and sudo refuses"
fi
echo "prepare: installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq || by_hand "apt-get update failed"
# RUNLEVEL=1 keeps redis-server's package from starting a server of its own.
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 || by_hand "apt-get install failed"
