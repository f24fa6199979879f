#!/usr/bin/env bash
# The lints, as `make lint` and CI run them. Each step runs even if one before it failed.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
failed=()

step() {
    local name=$1
    shift
    echo "== $name"
    "$@" || failed+=("$name")
}

tests/lab/install.sh lint
step 'cargo fmt' cargo fmt --all --check
step 'cargo clippy' cargo clippy --workspace --all-targets --quiet -- -D warnings
if command -v shellcheck >/dev/null; then
    mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
    step 'shellcheck' shellcheck "${scripts[@]}"
else
    echo '== shellcheck: skipped, not installed'
fi
if cargo deny --version >/dev/null 2>&1; then
    step 'cargo deny' cargo deny --log-level error check bans licenses sources
    # The advisory database comes from the network; without one this step only warns.
    cargo deny --log-level error check advisories || echo 'cargo deny: advisories not checked or found: see above'
else
    echo '== cargo deny: skipped, not installed (cargo install --locked cargo-deny)'
fi
if cargo sqlx --version >/dev/null 2>&1; then
    step 'sqlx prepare --check' deploy/dev/postgres.sh with cargo sqlx prepare --check --workspace
else
    echo '== sqlx: skipped, not installed (cargo install --locked sqlx-cli)'
fi

if ((${#failed[@]})); then
    echo "lint: FAILED: ${failed[*]}"
    exit 1
fi
echo 'lint: ok'
