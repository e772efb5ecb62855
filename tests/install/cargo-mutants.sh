#!/usr/bin/env bash
# Installs cargo-mutants once into the per-user cache.
exec "$(dirname "$0")/cargo-tool.sh" cargo-mutants 27.1.0
