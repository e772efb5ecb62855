#!/usr/bin/env bash
# Installs cargo-deny once into the per-user cache.
exec "$(dirname "$0")/cargo-tool.sh" cargo-deny 0.20.2
