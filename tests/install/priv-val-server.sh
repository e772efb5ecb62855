#!/bin/sh
# Installs CometBFT's own remote signer, its file signer behind a socket, and prints its path:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/highwater/cometbft/VERSION/priv_val_server
#
# Builds it only if it is missing, from the Go module proxy, with the installed Go (1.25 or later). Nothing else on the machine
# changes except Go's own caches. Two runs at once are safe: each builds in its own directory and then renames the result.
set -eu

VERSION=v0.38.25
PACKAGE=github.com/cometbft/cometbft/cmd/priv_val_server

say() {
    echo "*** priv-val-server.sh: $*" >&2
}

parent="${XDG_CACHE_HOME:-$HOME/.cache}/highwater/cometbft"
root="$parent/$VERSION"
if [ ! -x "$root/priv_val_server" ]; then
    if ! command -v go >/dev/null; then
        say "NOT INSTALLED: there is no 'go' on the PATH: install Go 1.25 or later and run this again."
        # Without it `make bench` says so and leaves it out.
        exit 0
    fi
    mkdir -p "$root"
    aside=$(mktemp -d "$parent/.building.XXXXXX")
    trap 'rm -rf "$aside"' EXIT
    trap 'exit 1' HUP INT TERM

    say "building $VERSION with $(go version): downloads its modules, takes a minute or more"
    # Without cgo the build needs no C compiler.
    CGO_ENABLED=0 GOBIN="$aside" go install "$PACKAGE@$VERSION"
    mv -f "$aside/priv_val_server" "$root/priv_val_server"
fi
say "$VERSION is installed: $root/priv_val_server"
echo "$root/priv_val_server"
