#!/usr/bin/env bash
# A private PostgreSQL cluster: own data, own socket, no TCP port.
#   postgres.sh start DIR   make it if need be, start it, print the connection URL of its schema's owner
#   postgres.sh url DIR ROLE   print that of another role: owner, runtime, operator, reader
#   postgres.sh stop DIR
#   postgres.sh remove DIR   stop it and delete its data
#   postgres.sh with COMMAND...   run a command with DATABASE_URL of a migrated throw-away cluster
# PostgreSQL refuses to run as root; then it runs as the unprivileged user `postgres` of the Debian package.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)

# Debian's versioned folder first: a link to pg_ctl in PATH need not have psql beside it.
pg_ctl=$(compgen -G '/usr/lib/postgresql/*/bin/pg_ctl' | sort -V | tail -1 || true)
binaries=$(dirname "$(readlink -f "${pg_ctl:-$(command -v pg_ctl || echo missing)}")")
[[ -x $binaries/pg_ctl ]] || { echo 'PostgreSQL is not installed: apt-get install postgresql' >&2; exit 1; }

as_owner() {
    if ((EUID == 0)); then (cd / && exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"); else "$@"; fi
}

# A socket's path has room for 107 bytes only, so it is named by a digest of the directory, not put inside it.
socket_of() { echo "${TMPDIR:-/tmp}/sbc-pg-$(id -u)-$(printf %s "$1" | sha256sum | cut -c1-12)"; }
url_of() { echo "postgres://sbc_$2@localhost/sbc?host=$(socket_of "$1")"; }

# As root the data must lie where the user `postgres` can reach it; a checkout under /root is not such a place.
reachable() { as_owner test -x "$1" 2>/dev/null; }

data_of() {
    local dir=$1
    mkdir -p "$dir"
    if ((EUID != 0)) || reachable "$dir"; then echo "$dir/postgres"; else
        echo "/var/lib/postgresql/sbc-$(printf %s "$dir" | sha256sum | cut -c1-12)"
    fi
}

start() {
    local dir data socket
    dir=$(realpath -m "$1")
    data=$(data_of "$dir")
    socket=$(socket_of "$dir")
    mkdir -p "$data" "$socket"
    if ((EUID == 0)); then chown postgres: "$data" "$socket"; fi
    chmod 700 "$data"
    chmod 755 "$socket"
    if [[ ! -s $data/PG_VERSION ]]; then
        as_owner "$binaries/initdb" -D "$data" -U sbc -E UTF8 --locale=C -A trust >/dev/null
    fi
    if ! as_owner "$binaries/pg_ctl" -D "$data" status >/dev/null 2>&1; then
        as_owner "$binaries/pg_ctl" -D "$data" -w -t 60 -l "$data/log" \
            -o "-c listen_addresses='' -c unix_socket_directories='$socket' -c max_connections=50" start >/dev/null ||
            { tail -20 "$data/log" >&2; exit 1; }
    fi
    roles "$socket"
    url_of "$dir" owner
}

# The cluster's administrator is `sbc`; the database and its schema belong to `sbc_owner`, and each other role can connect as itself.
# In data of before one role was all: there it stays the owner, and `sbc_owner` may what it may.
roles() {
    local psql=("$binaries/psql" -h "$1" -U sbc -d postgres -qAtX -v ON_ERROR_STOP=1) role owner
    for role in sbc_owner sbc_runtime sbc_operator sbc_reader; do
        echo "SELECT 'CREATE ROLE $role LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$role') \\gexec"
    done | "${psql[@]}"
    owner=$("${psql[@]}" -c "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'sbc'")
    case $owner in
        '') "${psql[@]}" -c 'CREATE DATABASE sbc OWNER sbc_owner' ;;
        sbc) "${psql[@]}" -c 'SET client_min_messages = warning; GRANT sbc TO sbc_owner' ;;
    esac
}

stop() {
    local dir data
    dir=$(realpath -m "$1")
    data=$(data_of "$dir")
    [[ -s $data/PG_VERSION ]] || return 0
    as_owner "$binaries/pg_ctl" -D "$data" -m fast -w stop >/dev/null 2>&1 || true
    rm -rf "$(socket_of "$dir")"
}

case ${1:-} in
    start) start "${2:?directory}" ;;
    url) url_of "$(realpath -m "${2:?directory}")" "${3:?role}" ;;
    stop) stop "${2:?directory}" ;;
    remove)
        stop "${2:?directory}"
        rm -rf "$(data_of "$(realpath -m "$2")")"
        ;;
    with)
        shift
        scratch=$(mktemp -d)
        chmod 755 "$scratch"
        if ((EUID == 0)); then chown postgres: "$scratch"; fi
        trap 'stop "$scratch"; rm -rf "$scratch"' EXIT
        DATABASE_URL=$(start "$scratch")
        export DATABASE_URL
        if compgen -G "$here/migrations/*.sql" >/dev/null && cargo sqlx --version >/dev/null 2>&1; then
            cargo sqlx migrate run --source "$here/migrations" >/dev/null
        fi
        "$@"
        ;;
    *) sed -n '2,9p' "$0"; exit 2 ;;
esac
