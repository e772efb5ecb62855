#!/bin/sh
# Installs the tmkms that tests/cometbft/tmkms.rs runs, at the path where the test looks for it:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/highwater/tmkms-0.15.0/bin/tmkms
#
# Builds it only if it is missing, from the cargo registry, with the installed cargo. Nothing else on the machine changes
# except cargo's own caches. Two runs at once are safe: each builds in its own directory and then renames the result.
set -eu

VERSION=0.15.0

say() {
    echo "*** tmkms.sh: $*" >&2
}

parent="${XDG_CACHE_HOME:-$HOME/.cache}/highwater"
root="$parent/tmkms-$VERSION"
if [ -x "$root/bin/tmkms" ]; then
    say "$VERSION is already installed: $root/bin/tmkms"
    exit 0
fi

mkdir -p "$root/bin"
aside=$(mktemp -d "$parent/.building.XXXXXX")
trap 'rm -rf "$aside"' EXIT
trap 'exit 1' HUP INT TERM

say "building $VERSION with $(cargo --version): downloads its crates, takes a few minutes"
cargo install tmkms --locked --version "$VERSION" --features softsign --root "$aside"
mv -f "$aside/bin/tmkms" "$root/bin/tmkms"
say "installed $VERSION: $root/bin/tmkms"
