#!/usr/bin/env bash
# Writes every transcript anew with what the program says now, and elides what differs from run to run. Then corrects the examples
# in the documents that show something else. Read the diff.
set -euo pipefail
cd "$(dirname "$0")/../.."
TRYCMD=overwrite "${CARGO:-cargo}" test --locked --test commands transcripts
find tests/cmd -name '*.trycmd' -exec sed -i -E \
  -e 's/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z/[..]/' \
  -e 's/^(host +)[0-9a-f]{8}$/\1[..]/' \
  -e 's/("host":")[0-9a-f]{8}"/\1[..]"/' \
  -e '/block_id/!s/\<(02|03)?([0-9a-f]{64}|[0-9A-F]{64})\>/[..]/g' \
  -e '/block_id/!s/\<[0-9a-fA-F]{40}\>/[..]/g' \
  -e 's/(control-)[0-9a-f]{8}/\1[..]/g' \
  -e 's/\<(apub|cpub|peer id )[0-9a-z]{30,}/\1[..]/g' {} +
"${CARGO:-cargo}" test --locked --test commands transcripts
HIGHWATER_EXAMPLES=overwrite "${CARGO:-cargo}" test --locked --test project examples
"${CARGO:-cargo}" test --locked --test project examples
