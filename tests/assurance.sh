#!/usr/bin/env bash
# Tries the promises of docs/assurance.md, and ends with a line for each thing that was tried and how often.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

tests/install/debian.sh strace
tests/install/filepv.sh >/dev/null
tests/install/powercut.sh
tests/install/cargo-fuzz.sh

# A failure ends the run here, with the whole output above it.
say() { printf '%s\n' "$*" | tee -a "$log"; }
run() { "$@" 2>&1 | tee -a "$log"; }

export HIGHWATER_STEPS=${HIGHWATER_STEPS:-1000000} HIGHWATER_KILLS=${HIGHWATER_KILLS:-200}
export HIGHWATER_SEED=${HIGHWATER_SEED:-$RANDOM} HIGHWATER_POWERCUTS=${HIGHWATER_POWERCUTS:-5}
say "seed $HIGHWATER_SEED"
run "$cargo" test --locked --profile assurance --test durable_first --test never_two --test hostile --test hostile_crowd \
  --test powercut -- --nocapture
unset HIGHWATER_STEPS HIGHWATER_KILLS HIGHWATER_SEED
run "$cargo" test --locked --test broken_variants -- --include-ignored --nocapture

export RUSTC_BOOTSTRAP=1
for target in fuzz/targets/*.rs; do
  target=$(basename "$target" .rs)
  mkdir -p "fuzz/corpus/$target"
  output=$("$cargo" fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    -max_total_time="${SECONDS_EACH:-5}" -print_final_stats=1 2>&1) || { printf '%s\n' "$output"; exit 1; }
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' <<<"$output")
  say "assurance: fed garbage: inputs to the fuzz target $target: $executions"
done

echo
grep -o 'assurance: .*' "$log" | sed 's/^assurance: //' | sort |
  awk -F ': ' '{ printf "%-14s %-86s %12s\n", $1, $2, $3 }'
