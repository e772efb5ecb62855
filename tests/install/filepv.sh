#!/bin/sh
# Builds CometBFT's file signer of tests/filepv and prints its path:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/highwater/filepv-HASH/filepv
#
# HASH is the hash of its sources: it is built only when they change, from the Go module proxy, with the installed Go
# (1.25 or later). Nothing else on the machine changes except Go's own caches. Two runs at once are safe: each builds in its
# own directory and then renames the result.
set -eu

say() {
    echo "*** filepv.sh: $*" >&2
}

package=$(cd "$(dirname "$0")/../filepv" && pwd)
hash=$(cd "$package" && sha256sum go.mod go.sum main.go | sha256sum | cut -c 1-16)
parent="${XDG_CACHE_HOME:-$HOME/.cache}/highwater"
root="$parent/filepv-$hash"
if [ ! -x "$root/filepv" ]; then
    if ! command -v go >/dev/null; then
        say "NOT INSTALLED: there is no 'go' on the PATH: install Go 1.25 or later and run this again."
        # Without it its tests say so and are skipped; only in CI they fail.
        [ "${CI:-}" = true ] && exit 1
        exit 0
    fi
    mkdir -p "$root"
    aside=$(mktemp -d "$parent/.building.XXXXXX")
    trap 'rm -rf "$aside"' EXIT
    trap 'exit 1' HUP INT TERM

    say "building filepv with $(go version): downloads its modules, takes half a minute"
    # Without cgo the build needs no C compiler.
    (cd "$package" && CGO_ENABLED=0 go build -mod=readonly -trimpath -o "$aside/filepv" .)
    mv -f "$aside/filepv" "$root/filepv"
fi
say "filepv is installed: $root/filepv"
echo "$root/filepv"
