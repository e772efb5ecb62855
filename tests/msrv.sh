#!/usr/bin/env bash
# Checks that everything compiles with the oldest toolchain that Cargo.toml claims, where that one is installed. It installs
# none: a missing toolchain is no finding.
set -euo pipefail
cd "$(dirname "$0")/.."
claimed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
[ -n "$claimed" ] || { echo "Cargo.toml claims no rust-version" >&2; exit 1; }

installed=$(rustup toolchain list 2>/dev/null | awk '{ print $1 }' | grep -E "^${claimed//./\\.}(\.[0-9]+)?(-|$)" | head -n 1 || true)
if [ -z "$installed" ]; then
  printf '*** NOT CHECKED: rust-version: toolchain %s is not installed; `rustup toolchain install %s` gets it ***\n' "$claimed" "$claimed"
  exit 0
fi
# A folder of its own: the next build with the usual toolchain finds its own as it was.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/msrv
rustup run "$installed" cargo check --locked --quiet --all-targets
echo "compiles with $installed"
