#!/usr/bin/env bash
# `make run`: the SBC with a private database and a small demo, in the foreground. LISTEN=address serves other machines;
# SIP_PORT and HTTP_PORT move it aside where 5060 or 8080 are taken. The pages stay on loopback unless HTTP_LISTEN says otherwise.
set -euo pipefail
cd "$(dirname "$0")/../.."
listen=${LISTEN:-127.0.0.1}
for name in SIP_PORT HTTP_PORT; do
    value=${!name:-1}
    if [[ ! $value =~ ^[0-9]{1,5}$ ]] || ((10#$value < 1 || 10#$value > 65534)); then
        echo "$name=$value is no port: a number from 1 to 65534" >&2
        exit 1
    fi
done
sip_port=${SIP_PORT:-5060}
http_port=${HTTP_PORT:-8080}
http_listen=${HTTP_LISTEN:-127.0.0.1}
exposed=false
[[ -n ${HTTP_LISTEN:-} ]] && exposed=true
var=$PWD/var/run
mkdir -p "$var"
# The database under var/run is that of one SBC: a second run would stop it under the first.
exec 9>"$var/lock"
flock -n 9 || { echo "'make run' is running in this checkout already: stop it, or run from another clone" >&2; exit 1; }

target=${CARGO_TARGET_DIR:-target}
program=$target/release/sbc
[[ -x $program ]] || echo 'building; the first time takes some minutes ...'
# cargo shows how far it is; its bar needs a terminal, so without one each crate gets a line.
cargo build --release -p sbc
[[ -x $program ]] || { echo "no program at $program: does the crate sbc have a binary?" >&2; exit 1; }

sbc_pid=
finish() {
    trap - EXIT
    # The first signal lets running calls end, a second one ends them.
    trap 'kill -TERM "$sbc_pid" 2>/dev/null || true' INT TERM HUP
    if [[ -n $sbc_pid ]]; then
        kill -TERM "$sbc_pid" 2>/dev/null || true
        while kill -0 "$sbc_pid" 2>/dev/null; do wait "$sbc_pid" 2>/dev/null || true; done
    fi
    deploy/dev/postgres.sh stop "$var"
    echo 'stopped; the data stays under var/run'
}
trap finish EXIT
trap 'exit 0' INT
trap 'exit 143' TERM HUP

if [[ ! -s $var/key.pem ]] || ! openssl x509 -in "$var/certificate.pem" -noout -checkip "$listen" 2>/dev/null | grep -q 'does match'; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=$listen" -addext "subjectAltName=IP:$listen" \
        -keyout "$var/key.pem" -out "$var/certificate.pem" 2>/dev/null
fi
# The lock is this script's: what outlives it must not hold it.
owner=$(deploy/dev/postgres.sh start "$var" 9>&-)
# Each with no more rights than its work needs: the owner changes the schema, the SBC runs, `psql` operates, `records` reads.
DATABASE_URL=$(deploy/dev/postgres.sh url "$var" runtime)
operator=$(deploy/dev/postgres.sh url "$var" operator)
reader=$(deploy/dev/postgres.sh url "$var" reader)
export DATABASE_URL
fill() {
    sed -e "s|@LISTEN@|$listen|g" -e "s|@HTTPLISTEN@|$http_listen|g" -e "s|@EXPOSED@|$exposed|g" -e "s|@RECORDS@|$var/records|g" -e "s|@SIP@|$sip_port|g" -e "s|@TLS@|$((sip_port + 1))|g" -e "s|@HTTP@|$http_port|g" -e "s|@VAR@|$var|g" "$1"
}
fill deploy/dev/sbc.toml.in >"$var/sbc.toml"
"$program" migrate --owner "$owner"
# A command that reads the records needs no environment of its own, but the database, which ends with this script.
is_there="[ -S '${DATABASE_URL#*host=}/.s.PGSQL.5432' ] || { echo 'the database runs while make run does: start it first' >&2; exit 1; }"
printf '#!/bin/sh\n%s\nDATABASE_URL="%s" exec "%s" records --config "%s" "$@"\n' \
    "$is_there" "$reader" "$(realpath "$program")" "$var/sbc.toml" >"$var/records"
printf '#!/bin/sh\n%s\nexec psql "%s" "$@"\n' "$is_there" "$operator" >"$var/psql"
chmod 755 "$var/records" "$var/psql"
# The seed is idempotent: a second run continues with the same data.
psql -q -v ON_ERROR_STOP=1 "$operator" -v listen="$listen" -f deploy/dev/seed.sql

# In the background so that a signal reaches the trap at once, and in a session of its own: Ctrl-C is one signal, not two.
setsid "$program" serve --config "$var/sbc.toml" 9>&- &
sbc_pid=$!
until curl -sf -m 2 -o /dev/null "http://$http_listen:$http_port/readyz"; do
    if ! kill -0 "$sbc_pid" 2>/dev/null; then
        wait "$sbc_pid" || true
        sbc_pid=
        echo "The SBC did not start; why stands above. A taken port: make run SIP_PORT=5070 HTTP_PORT=8081 (the side of the trunks has 5080)" >&2
        exit 1
    fi
    sleep 0.1
done
fill deploy/dev/welcome.txt
wait "$sbc_pid"
