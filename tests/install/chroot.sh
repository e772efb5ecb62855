#!/bin/sh
# Makes the bare Debian in which tests/package.rs installs the package, at the path where the test looks for it:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/highwater/chroot-bookworm.tar
#
# Uses the mirror that apt uses here. Two runs at once are safe: each works in its own directory and then renames the result.
set -eu

SUITE=bookworm

say() {
    echo "*** chroot.sh: $*" >&2
}

# Without it the test says so and is skipped; only in CI it fails.
give_up() {
    say "NOT MADE: $*"
    [ "${CI:-}" = true ] && exit 1
    exit 0
}

parent="${XDG_CACHE_HOME:-$HOME/.cache}/highwater"
ready="$parent/chroot-$SUITE.tar"
if [ -e "$ready" ]; then
    say "already made: $ready"
    exit 0
fi
[ "$(id -u)" -eq 0 ] || give_up "only root can do this. Run it again as root."
"$(dirname "$0")/debian.sh" debootstrap

mirror=$(apt-cache policy base-files | sed -n 's/^ *[0-9]* \(https\{0,1\}:[^ ]*\) .*/\1/p' | head -n 1)
mkdir -p "$parent"
aside=$(mktemp -d "$parent/.gathering.XXXXXX")
trap 'rm -rf "$aside"' EXIT
trap 'exit 1' HUP INT TERM

say "unpacking $SUITE from ${mirror:-debootstrap's mirror}"
# Include the dependencies of the package and a PKCS#11 module: dpkg alone must be able to install the package.
debootstrap --variant=minbase --include=systemd,softhsm2 "$SUITE" "$aside/root" ${mirror:+"$mirror"} \
    >"$aside/log" 2>&1 || {
    tail -n 5 "$aside/log" >&2
    give_up "debootstrap failed."
}
rm -rf "$aside/root/var/cache/apt/archives" "$aside/root/var/lib/apt/lists"
tar -C "$aside/root" --one-file-system -cf "$aside/ready.tar" .
mv "$aside/ready.tar" "$ready"
say "made: $ready"
