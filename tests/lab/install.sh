#!/usr/bin/env bash
# Installs what `make run`, `make test` and `make bench` need from Debian or Ubuntu and is not there yet.
# As root it installs, saying what; otherwise it says exactly what to install. It never starts a packaged service.
set -euo pipefail

purpose=${1:-all}

# command or file -> package
run_needs=(curl=curl pg_ctl=postgresql cc=gcc openssl=openssl)
test_needs=(
    sipp=sip-tester baresip=baresip-core linphonec=linphone-cli kamailio=kamailio ip=iproute2 nft=nftables
    nsd=nsd tcpdump=tcpdump conntrack=conntrack ethtool=ethtool faketime=faketime
)
bench_needs=(rtpengine=rtpengine-daemon python3=python3 valgrind=valgrind)

case $purpose in
    run) needs=("${run_needs[@]}") ;;
    test) needs=("${run_needs[@]}" "${test_needs[@]}") ;;
    lint) needs=("${run_needs[@]}" shellcheck=shellcheck) ;;
    bench | all) needs=("${run_needs[@]}" "${test_needs[@]}" "${bench_needs[@]}") ;;
    *) echo "usage: $0 [run|test|lint|bench|all]" >&2; exit 2 ;;
esac

PATH=$PATH:/usr/sbin:/sbin
present() {
    command -v "$1" >/dev/null 2>&1 && return
    # Debian keeps the server programs of PostgreSQL out of PATH.
    [[ $1 == pg_ctl ]] && compgen -G '/usr/lib/postgresql/*/bin/pg_ctl' >/dev/null
}

missing=()
for need in "${needs[@]}"; do
    present "${need%%=*}" || missing+=("${need#*=}")
done
if ((${#missing[@]} == 0)); then exit 0; fi

if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]} (names of Debian's packages; this is no Debian or Ubuntu, install their like)" >&2
    [[ $purpose == run ]] && exit 1 || exit 0
fi
if ((EUID != 0)); then
    echo "Not root, so nothing was installed. Missing: ${missing[*]}" >&2
    echo "Install with:  sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    # Tests say for themselves what they skip; running needs its database.
    [[ $purpose == run ]] && exit 1 || exit 0
fi

echo "installing with apt-get: ${missing[*]}"
# Packaged services stay off: each test starts its own, in its own namespace.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
fi
# A PostgreSQL that makes its "main" cluster at installation would want a port: ours is private.
if [[ ! -e /etc/postgresql-common/createcluster.conf ]]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}" >/dev/null
echo "installed: ${missing[*]}"
