#!/usr/bin/env bash
# Installs cargo-fuzz once into the per-user cache.
exec "$(dirname "$0")/cargo-tool.sh" cargo-fuzz 0.13.2
