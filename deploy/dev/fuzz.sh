#!/usr/bin/env bash
# Runs every fuzz target for so many seconds each: fuzz.sh SECONDS
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:?usage: fuzz.sh SECONDS}
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo 'needs cargo-fuzz and a nightly compiler: cargo install --locked cargo-fuzz && rustup toolchain install nightly' >&2
    exit 1
fi
for target in $(cargo +nightly fuzz list); do
    echo "== fuzz $target, ${seconds} s"
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -rss_limit_mb=2048
done
