#!/usr/bin/env bash
# What must be on the machine before make can do its work. Each check is one line with its remedy when it fails.
#
#   tools/prerequisites.sh python          prints the command of a Python >= 3.11 that can make a venv
#   tools/prerequisites.sh node            Node >= 20 with npm
#   tools/prerequisites.sh cc              a C compiler
#   tools/prerequisites.sh packages demo   Debian packages of the demo, installed where we may
#   tools/prerequisites.sh packages test   those of the tests
#   tools/prerequisites.sh packages bench  servers that the bench puts beside ours
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "eyvan: $*"
    exit 1
}

need_python() {
    local python
    for python in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
                install_packages python3-venv || fail "$python cannot make a venv; apt-get install python3-venv"
            fi
            printf '%s\n' "$python"
            return
        fi
    done
    fail "Python 3.11 or newer was not found; install it, or name it: make PYTHON=/path/to/python3.11 …"
}

need_node() {
    local version
    version=$(node --version 2>/dev/null) || fail "Node was not found; install Node 20 or newer with npm"
    version=${version#v}
    ((${version%%.*} >= 20)) || fail "Node $version is too old for the page; install Node 20 or newer"
    command -v npm >/dev/null || fail "npm was not found; install the npm that belongs to Node $version"
}

need_cc() {
    command -v "${CC:-cc}" >/dev/null || install_packages gcc libc6-dev ||
        fail "no C compiler (${CC:-cc}) was found; apt-get install gcc libc6-dev"
}

# Installs as root, or by sudo where that asks nothing; false where neither is so.
install_packages() {
    local sudo=()
    command -v apt-get >/dev/null || return 1
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null || return 1
        sudo=(sudo -n)
    fi
    say "Installing $* (apt-get) …"
    local log
    log=$(mktemp)
    if ! { "${sudo[@]}" apt-get update -q && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -yq --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# program:package for each thing of a purpose
wanted() {
    case $1 in
    demo) echo espeak-ng:espeak-ng ;;
    test)
        echo espeak-ng:espeak-ng chromium:chromium firefox-esr:firefox-esr pulseaudio:pulseaudio \
            pactl:pulseaudio-utils nft:nftables ip:iproute2 opusenc:opus-tools sox:sox curl:curl strace:strace \
            /usr/lib/postgresql/15/bin/initdb:postgresql-15
        ;;
    bench) echo janus:janus icecast2:icecast2 ;;
    *) fail "packages $1: say demo, test or bench" ;;
    esac
}

need_packages() {
    local each missing=() here
    here=$(wanted "$1")
    for each in $here; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${each%%:*}" >/dev/null || missing+=("${each##*:}")
    done
    ((${#missing[@]})) || return 0
    install_packages "${missing[@]}" && return 0
    if [[ $1 == demo ]]; then
        say "For spoken voices in the demo: apt-get install ${missing[*]} (without them strings play)"
    elif [[ $1 == bench ]]; then
        say "To measure all peers: apt-get install ${missing[*]} (without them their rows are left out)"
    else
        fail "the tests need: apt-get install ${missing[*]}"
    fi
}

case ${1:-} in
python) need_python ;;
node) need_node ;;
cc) need_cc ;;
packages) need_packages "${2:-}" ;;
*) fail "usage: tools/prerequisites.sh python | node | cc | packages demo|test|bench" ;;
esac
