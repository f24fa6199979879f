#!/usr/bin/env bash
# The lints, as `make lint` and CI run them. Each step runs even if one before it failed; none is skipped in silence.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
failed=()

step() {
    local name=$1 started=$SECONDS
    shift
    echo "== $name"
    "$@" || failed+=("$name")
    echo "   $name: $((SECONDS - started)) s"
}

# A cargo subcommand that is missing is built from source, which takes some minutes and needs the registry.
tool() {
    local subcommand=$1
    shift
    cargo "$subcommand" --version >/dev/null 2>&1 && return
    echo "== installing cargo $subcommand with cargo (some minutes)"
    cargo install --quiet "$@" && return
    failed+=("$subcommand: cargo install $*")
    return 1
}

# Advisories come from the network. Without it a copy of an earlier run is used; without that nothing can be checked,
# and the state of the code says nothing about it, so that is told and is no failure.
advisories() {
    if ! cargo deny fetch db >/dev/null 2>&1; then
        if ! compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/.git" >/dev/null; then
            echo "NOT CHECKED: the advisory database can't be fetched and there is no copy of it"
            return 0
        fi
        echo "the advisory database can't be fetched; the copy of an earlier run is used"
    fi
    cargo deny --log-level error --offline check advisories
}

queries() {
    SQLX_OFFLINE=false deploy/dev/postgres.sh with cargo sqlx prepare --check --workspace
}

tests/lab/install.sh lint
step 'cargo fmt' cargo fmt --all --check
step 'cargo clippy' cargo clippy --workspace --all-targets --quiet -- -D warnings
if command -v shellcheck >/dev/null; then
    mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
    step 'shellcheck' shellcheck "${scripts[@]}"
else
    failed+=('shellcheck is not installed: apt-get install shellcheck')
fi
if tool deny --locked cargo-deny; then
    step 'cargo deny' cargo deny --log-level error check bans licenses sources
    step 'advisories' advisories
fi
# Its lock file is behind its own features, hence no --locked.
if tool sqlx sqlx-cli --version 0.9.0 --no-default-features --features rustls,postgres; then
    step 'queries against PostgreSQL' queries
fi

if ((${#failed[@]})); then
    printf 'lint: FAILED: %s\n' "${failed[@]}"
    exit 1
fi
echo 'lint: ok'
