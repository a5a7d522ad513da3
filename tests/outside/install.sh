#!/usr/bin/env bash
# Installs the programs of others that the tests of this folder drive: `install.sh NAME...`, or `install.sh all`.
#
# What is there already is left alone. Debian's packages come by apt-get (so this wants root where one is missing) and
# everything else goes below target/tools, with the versions of all that it needs pinned. A package of Debian 12 changes
# its version for corrections only; another version than the tests were written for is an error, and so is a program
# that does not come: nothing is skipped.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
tools="${CARGO_TARGET_DIR:-$here/../../target}/tools"
mkdir -p "$tools"
tools="$(cd "$tools" && pwd)"
# Tests run side by side, and package managers do not like company.
exec 9>"$tools/lock"
flock 9

debian() { # PACKAGE...
    dpkg -s "$@" >/dev/null 2>&1 && return
    local install=(apt-get install -y -qq --no-install-recommends "$@")
    export DEBIAN_FRONTEND=noninteractive
    # The lists of a fresh system are empty or old.
    "${install[@]}" >/dev/null 2>&1 && return
    apt-get update -qq
    "${install[@]}" >/dev/null
}

expect() { # VERSION COMMAND...
    local version="$1" said
    shift
    said="$("$@" 2>&1 || true)"
    case "$said" in
    *"$version"*) ;;
    *)
        echo "$1: expected version $version, and it says: $said" >&2
        exit 1
        ;;
    esac
}

python() { # NAME REQUIREMENTS MAKE...: an environment below target/tools, anew if what it needs has changed
    local into="$tools/$1" needs="$2" told="$tools/$1.log"
    shift 2
    cmp -s "$needs" "$into/installed.txt" && return
    "$@" "$into"
    "$into/bin/python" -m pip install --quiet --disable-pip-version-check -r "$needs" >"$told" 2>&1 ||
        { cat "$told" >&2 && exit 1; }
    cp "$needs" "$into/installed.txt"
}

python3_venv() {
    python3 -c "import ensurepip" 2>/dev/null || debian python3-venv
}

install_curl() {
    command -v curl >/dev/null && curl --version | grep -q HTTP2 || debian curl
    expect HTTP2 curl --version
}

install_nghttp2() {
    debian nghttp2-client
    expect 1.52. h2load --version
}

install_varnishtest() {
    debian varnish
    expect "varnish-7.1." varnishd -V
}

install_slowhttptest() {
    debian slowhttptest
    expect "version 1.8." slowhttptest -h
}

install_testssl() {
    debian testssl.sh bsdextrautils dnsutils procps
    expect "3.0.8" testssl --version
}

install_etcd() {
    debian etcd-server etcd-client
    expect "Version: 3.4." etcd --version
    expect "version: 3.4." env ETCDCTL_API=3 etcdctl version
}

install_registry() {
    debian docker-registry
    expect "2.8." docker-registry --version
}

# Driven by tests/cluster, as what it is compared with.
install_keepalived() {
    debian keepalived
    expect "Keepalived v2." keepalived --version
}

# A browser has to be the newest there is, so its version is Debian's to choose.
install_chromium() {
    debian chromium
    expect Chromium chromium --version
}

install_httpwg() {
    local version=0.2.5
    if [ "$(cat "$tools/httpwg.txt" 2>/dev/null)" != "$version" ]; then
        cargo install --quiet httpwg-cli --version "$version" --locked --root "$tools"
        echo "$version" >"$tools/httpwg.txt"
    fi
    [ -x "$tools/bin/httpwg" ]
}

# The newest release is Python 2.7 all the same. The packages of virtualenv know it up to this version.
install_autobahn() {
    local candidate old=""
    for candidate in python2.7 "$HOME"/.pyenv/versions/2.7.*/bin/python2.7; do
        # A shim of pyenv may be there and lead nowhere.
        "$candidate" -c "" 2>/dev/null && old="$candidate"
    done
    if [ -z "$old" ]; then
        echo "Autobahn needs CPython 2.7, as python2.7 or by pyenv install 2.7.18" >&2
        exit 1
    fi
    python3_venv
    python virtualenv "$here/autobahn/virtualenv.txt" python3 -m venv --clear
    python autobahn "$here/autobahn/requirements.txt" "$tools/virtualenv/bin/virtualenv" --quiet --clear -p "$old"
}

install_grpc() {
    python3_venv
    python grpc "$here/grpc/requirements.txt" python3 -m venv --clear
}

# Debian's curl has no WebSocket; the wheel of pycurl brings a libcurl of its own that has.
install_websocket() {
    python3_venv
    python websocket "$here/websocket/requirements.txt" python3 -m venv --clear
    expect "'ws', 'wss'" "$tools/websocket/bin/python" -c "import pycurl; print(pycurl.version_info())"
}

all=(keepalived curl etcd registry nghttp2 varnishtest slowhttptest testssl chromium httpwg autobahn grpc websocket)
[ "${1:-}" != all ] || set -- "${all[@]}"
for name; do
    "install_$name"
done
