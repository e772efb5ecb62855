#!/busybox sh
# The first process of a machine that does nothing but sign. If a step fails it goes off, and QEMU ends.
set -e
b=/busybox
trap '$b poweroff -f' EXIT

$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for module in /modules/*; do
    $b insmod "$module"
done
$b ip link set lo up
$b ip address add 10.0.2.15/24 dev eth0
$b ip link set eth0 up
# Replays the journal.
$b mount -t ext4 /dev/vda /disk

# A word of the kernel's command line. Later a watermark that is missing is a lost one.
if [ "$1" = first-boot ]; then
    highwater state init --never-signed --chain test-chain -c /highwater/tmkms.toml
fi
highwater start -c /highwater/tmkms.toml
