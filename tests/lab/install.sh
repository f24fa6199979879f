#!/usr/bin/env bash
# Installs what `make run`, `make test` and `make bench` need from Debian or Ubuntu and is not there yet.
# As root it installs, saying what; otherwise it says exactly what to install. It never starts a packaged service.
set -euo pipefail

purpose=${1:-all}

# command or file -> package
run_needs=(curl=curl pg_ctl=postgresql cc=gcc clang=clang openssl=openssl)
test_needs=(
    sipp=sip-tester baresip=baresip-core linphonec=linphone-cli kamailio=kamailio ip=iproute2 nft=nftables
    nsd=nsd tcpdump=tcpdump conntrack=conntrack turnserver=coturn ethtool=ethtool faketime=faketime
    valgrind=valgrind miniupnpd=miniupnpd-nftables
)
demo_needs=(ip=iproute2 nft=nftables tcpdump=tcpdump)
bench_needs=(rtpengine=rtpengine-daemon python3=python3)
# libFuzzer is C++, built with its targets.
fuzz_needs=('cc=gcc' 'g++=g++' 'clang=clang')

case $purpose in
    run) needs=("${run_needs[@]}") ;;
    test) needs=("${run_needs[@]}" "${test_needs[@]}") ;;
    demo) needs=("${run_needs[@]}" "${demo_needs[@]}") ;;
    fuzz) needs=("${fuzz_needs[@]}") ;;
    lint) needs=("${run_needs[@]}" shellcheck=shellcheck) ;;
    bench | all) needs=("${run_needs[@]}" "${test_needs[@]}" "${bench_needs[@]}") ;;
    *) echo "usage: $0 [run|test|demo|fuzz|lint|bench|all]" >&2; exit 2 ;;
esac

PATH=$PATH:/usr/sbin:/sbin
present() {
    command -v "$1" >/dev/null 2>&1 && return
    # Debian keeps Python's way to make an environment in a package of its own.
    if [[ $1 == venv ]]; then python3 -c 'import ensurepip' 2>/dev/null; return; fi
    # Debian keeps the server programs of PostgreSQL out of PATH.
    [[ $1 == pg_ctl ]] && compgen -G '/usr/lib/postgresql/*/bin/pg_ctl' >/dev/null
}

# PJSIP for Python comes from PyPI, into a folder of the checkout's own; without it its tests say that they are skipped.
pjsip() {
    local folder
    folder=$(cd "$(dirname "$0")/../.." && pwd)/var/pjsua2
    [[ -x $folder/bin/python3 ]] && return
    echo "installing PJSIP for Python (pjsua2-python of PyPI) into $folder"
    if ! { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet 'pjsua2-python==2.15.1.post1'; }; then
        rm -rf "$folder"
        echo 'PJSIP for Python could not be installed: its tests will be skipped' >&2
    fi
}

missing=()
for need in "${needs[@]}"; do
    present "${need%%=*}" || missing+=("${need#*=}")
done
if ((${#missing[@]} == 0)); then
    [[ $purpose == test || $purpose == all ]] && pjsip
    exit 0
fi

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
# Without apt-utils debconf says for each package that it asks later; it asks nothing.
export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes
apt-get update -qq
apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}" >/dev/null 2> >(grep -v '^debconf:' >&2)
echo "installed: ${missing[*]}"
if [[ $purpose == test || $purpose == all ]]; then pjsip; fi
