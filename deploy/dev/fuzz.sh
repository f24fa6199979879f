#!/usr/bin/env bash
# Runs fuzz targets for so many seconds each: fuzz.sh SECONDS [TARGET...]
# Inputs that are kept: fuzz/seeds, fuzz/regressions and the torture messages of sip-wire. What a run learns stays under
# fuzz/corpus, what it finds under fuzz/artifacts; a finding belongs into fuzz/regressions/TARGET once it is mended.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:?usage: fuzz.sh SECONDS [TARGET...]}
shift
tests/lab/install.sh fuzz
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo 'installing cargo-fuzz: cargo install --locked cargo-fuzz'
    cargo install --locked --quiet cargo-fuzz
fi
# The sanitizer's flags are unstable ones: this lets the project's own compiler take them, so no nightly is needed.
export RUSTC_BOOTSTRAP=1
targets=("$@")
if ((${#targets[@]} == 0)); then mapfile -t targets < <(cargo fuzz list); fi
for target in "${targets[@]}"; do
    echo "== fuzz $target, ${seconds} s"
    kept=("fuzz/corpus/$target" "fuzz/seeds/$target" "fuzz/regressions/$target")
    if [[ $target == sip ]]; then kept+=(sip-proxy/wire/tests/torture sip-proxy/wire/tests/messages); fi
    mkdir -p "${kept[@]}"
    cargo fuzz run "$target" "${kept[@]}" -- -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=5 -print_final_stats=1
done
