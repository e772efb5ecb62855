#!/bin/sh
# Builds the simulated YubiHSM 2 of tests/yubihsm-device and prints its path:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/highwater/yubihsm-device-HASH/yubihsm-device
#
# HASH is the hash of its sources: it is built only when they change. Nothing else on the machine changes except cargo's own
# caches. Two runs at once are safe: each builds in its own directory and then renames the result.
set -eu

say() {
    echo "*** yubihsm-device.sh: $*" >&2
}

package=$(cd "$(dirname "$0")/../yubihsm-device" && pwd)
hash=$(cd "$package" && sha256sum Cargo.toml Cargo.lock src/*.rs | sha256sum | cut -c 1-16)
parent="${XDG_CACHE_HOME:-$HOME/.cache}/highwater"
root="$parent/yubihsm-device-$hash"
if [ ! -x "$root/yubihsm-device" ]; then
    mkdir -p "$root"
    aside=$(mktemp -d "$parent/.building.XXXXXX")
    trap 'rm -rf "$aside"' EXIT
    trap 'exit 1' HUP INT TERM

    say "building yubihsm-device with $(${CARGO:-cargo} --version): takes a minute"
    # The mock device does not compile without debug assertions: never --release.
    ${CARGO:-cargo} build --quiet --locked --manifest-path "$package/Cargo.toml" --target-dir "$aside" >&2
    mv -f "$aside/debug/yubihsm-device" "$root/yubihsm-device"
fi
say "yubihsm-device is installed: $root/yubihsm-device"
echo "$root/yubihsm-device"
