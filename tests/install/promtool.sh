#!/bin/sh
# Installs the promtool that tests/machine/monitoring.rs runs, at the path where the test looks for it:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/highwater/bin/promtool
#
# Extracts it from Debian's package `prometheus` without installing the package, which would start a server. Needs no root.
set -eu

say() {
    echo "*** promtool.sh: $*" >&2
}

parent="${XDG_CACHE_HOME:-$HOME/.cache}/highwater"
if [ -x "$parent/bin/promtool" ]; then
    say "already installed: $parent/bin/promtool"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    say "NOT INSTALLED: this is not Debian. Put a promtool of version 2.42 or later into $parent/bin."
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
