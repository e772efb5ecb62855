#!/bin/sh
# Installs the promtool that tests/machine/monitoring.rs runs, where it looks for it:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/highwater/bin/promtool
#
# Takes it out of Debian's package `prometheus`, without installing that: the package would start a server. Needs no root.
set -eu

say() {
    echo "*** promtool.sh: $*" >&2
}

parent="${XDG_CACHE_HOME:-$HOME/.cache}/highwater"
if [ -x "$parent/bin/promtool" ]; then
    say "it is there: $parent/bin/promtool"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    say "NOT INSTALLED: this is no Debian. Put a promtool of version 2.42 or later there."
    [ "${CI:-}" = true ] && exit 1
    exit 0
fi

mkdir -p "$parent/bin"
aside=$(mktemp -d "$parent/.building.XXXXXX")
trap 'rm -rf "$aside"' EXIT
trap 'exit 1' HUP INT TERM

[ "$(id -u)" -ne 0 ] || apt-get update -qq
cd "$aside"
apt-get -qq -o APT::Sandbox::User=root download prometheus
dpkg-deb --extract prometheus_*.deb .
mv -f usr/bin/promtool "$parent/bin/promtool"
say "installed $("$parent/bin/promtool" --version 2>&1 | head -n 1): $parent/bin/promtool"
