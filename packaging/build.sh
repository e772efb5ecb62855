#!/bin/sh
# Builds the Debian package into target/debian. Every byte is the same wherever the checkout and cargo's home are.
# The bytes depend only on the toolchain and the distribution: the release notes name both.
set -eu
cd "$(dirname "$0")/.."

cargo_home="${CARGO_HOME:-$HOME/.cargo}"
# All times in the package are the time of its changelog.
SOURCE_DATE_EPOCH=$(date -u -d "$(sed -n 's/^ -- .*>  //p' packaging/debian/changelog | head -n 1)" +%s)
# Keep paths of this machine out of panic messages and symbols. 0x1f separates values that may hold spaces.
CARGO_ENCODED_RUSTFLAGS=$(printf '%s\037%s' "--remap-path-prefix=$PWD=/highwater" "--remap-path-prefix=$cargo_home=/cargo")
# What shells complete, generated from the command line. An everyday build: none of it enters the program.
cargo run --quiet --locked --example completions target/completions
# Separate from everyday builds, which have other flags.
CARGO_TARGET_DIR="$PWD/target/package"
export SOURCE_DATE_EPOCH CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR
export LC_ALL=C.UTF-8 TZ=UTC
unset RUSTFLAGS
umask 022

# The program contains the list of crates and their versions, for `cargo audit bin`.
cargo auditable build --release --locked
mkdir -p target/debian
cargo deb --no-build --locked --output target/debian/
