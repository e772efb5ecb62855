#!/bin/sh
# Installs the virtual machine for tests/powercut: QEMU as a Debian package, and Debian's cloud kernel and static BusyBox,
# unpacked but not installed, at the paths where the test looks for them:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/highwater/powercut/{vmlinuz,busybox,modules/}
#
# The modules are those of a virtio drive and network card, numbered in the order of loading. Two runs at once are safe: each
# works in its own directory and then renames the result.
set -eu

# A module comes after those it needs.
MODULES="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net virtio_blk"

say() {
    echo "*** powercut.sh: $*" >&2
}

# Without them the test says so and is skipped; only in CI it fails.
give_up() {
    say "NOT INSTALLED: $*"
    [ "${CI:-}" = true ] && exit 1
    exit 0
}

"$(dirname "$0")/debian.sh" qemu-system-x86 e2fsprogs

parent="${XDG_CACHE_HOME:-$HOME/.cache}/highwater"
root="$parent/powercut"
if [ -e "$root/vmlinuz" ]; then
    say "the kernel is already installed: $root/vmlinuz"
    exit 0
fi
[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || give_up "the kernel. This is not Debian for amd64."

mkdir -p "$parent"
aside=$(mktemp -d "$parent/.gathering.XXXXXX")
trap 'rm -rf "$aside"' EXIT
trap 'exit 1' HUP INT TERM

# The package lists of a new machine are empty, and old lists name files that no longer exist.
[ "$(id -u)" -ne 0 ] || apt-get update -qq
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
[ -n "$kernel" ] || give_up "the kernel. As root, run apt-get update, then run this again."
say "unpacking $kernel and busybox-static"
(cd "$aside" && apt-get download -qq "$kernel" busybox-static 2>log) || {
    cat "$aside/log" >&2
    give_up "the kernel. apt-get cannot download it."
}
for package in "$aside"/*.deb; do
    dpkg-deb -x "$package" "$aside/unpacked"
done

mkdir -p "$aside/ready/modules"
number=10
for module in $MODULES; do
    found=$(find "$aside/unpacked" -name "$module.ko*")
    # What is missing is built into the kernel.
    [ -n "$found" ] || continue
    case "$found" in
    *.xz) xz -dc "$found" >"$aside/ready/modules/$number-$module.ko" ;;
    *) cp "$found" "$aside/ready/modules/$number-$module.ko" ;;
    esac
    number=$((number + 1))
done
cp "$(find "$aside/unpacked" -path '*/bin/busybox')" "$aside/ready/busybox"
cp "$aside/unpacked"/boot/vmlinuz-* "$aside/ready/vmlinuz"
# If another run was quicker, its files stay.
mv -T "$aside/ready" "$root" 2>/dev/null || [ -e "$root/vmlinuz" ]
say "installed the kernel: $root/vmlinuz"
