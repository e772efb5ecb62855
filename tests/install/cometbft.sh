#!/bin/sh
# Installs the CometBFT nodes that tests/cometbft/nodes.rs runs, each at the path where the test looks for it:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/highwater/cometbft/VERSION/cometbft
#
# Builds only what is missing, from the Go module proxy, with the installed Go (1.25 or later).
# Nothing else on the machine changes except Go's own caches. Two runs at once are safe: each builds in
# its own directory and then renames the result.
set -eu

VERSIONS="v0.37.18 v0.38.25 v0.40.0 v1.0.1"
PACKAGE=github.com/cometbft/cometbft/cmd/cometbft

say() {
    echo "*** cometbft.sh: $*" >&2
}

root="${XDG_CACHE_HOME:-$HOME/.cache}/highwater/cometbft"
missing=""
for version in $VERSIONS; do
    if [ -x "$root/$version/cometbft" ]; then
        say "$version is already installed: $root/$version/cometbft"
    else
        missing="$missing $version"
    fi
done
[ -n "$missing" ] || exit 0

if ! command -v go >/dev/null; then
    say "NOT INSTALLED:$missing. There is no 'go' on the PATH: install Go 1.25 or later and run this again."
    # Without a node its tests say so and are skipped; only in CI they fail.
    [ "${CI:-}" = true ] && exit 1
    exit 0
fi

mkdir -p "$root"
aside=$(mktemp -d "$root/.building.XXXXXX")
trap 'rm -rf "$aside"' EXIT
trap 'exit 1' HUP INT TERM

for version in $missing; do
    say "building $version with $(go version): downloads its modules, takes a minute or more"
    # Without cgo the build needs no C compiler.
    CGO_ENABLED=0 GOBIN="$aside/$version" go install "$PACKAGE@$version"
    mkdir -p "$root/$version"
    mv -f "$aside/$version/cometbft" "$root/$version/cometbft"
    say "installed $version: $root/$version/cometbft"
done
