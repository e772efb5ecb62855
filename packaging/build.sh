#!/bin/sh
# Builds the Debian package into target/debian, the same to the byte wherever the checkout and cargo's home are.
# A toolchain and a distribution give a package: the release notes name both.
set -eu
cd "$(dirname "$0")/.."

cargo_home="${CARGO_HOME:-$HOME/.cargo}"
# Times in the package are that of its changelog.
SOURCE_DATE_EPOCH=$(date -u -d "$(sed -n 's/^ -- .*>  //p' packaging/debian/changelog | head -n 1)" +%s)
# No path of this machine in panic messages, nor in symbols. 0x1f separates what may hold spaces.
CARGO_ENCODED_RUSTFLAGS=$(printf '%s\037%s' "--remap-path-prefix=$PWD=/highwater" "--remap-path-prefix=$cargo_home=/cargo")
# Apart from everyday builds, which have other flags.
CARGO_TARGET_DIR="$PWD/target/package"
export SOURCE_DATE_EPOCH CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR
export LC_ALL=C.UTF-8 TZ=UTC
unset RUSTFLAGS
umask 022

# With the list of crates and their versions inside, for `cargo audit bin`.
cargo auditable build --release --locked
mkdir -p target/debian
cargo deb --no-build --locked --output target/debian/
