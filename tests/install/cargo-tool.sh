#!/usr/bin/env bash
# Installs NAME at VERSION into the bin folder of the per-user cache, unless exactly that version is there.
set -euo pipefail
name=$1 version=$2
cache="${XDG_CACHE_HOME:-$HOME/.cache}/highwater"

# Look in cargo's own record: not every tool prints its version.
if [ -x "$cache/bin/$name" ] && grep -qF "\"$name $version (" "$cache/.crates.toml" 2>/dev/null; then
  exit 0
fi
echo "installing $name $version into $cache/bin (only once)"
cargo install "$name" --version "$version" --locked --quiet --force --root "$cache"
