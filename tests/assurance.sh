#!/usr/bin/env bash
# Tries the promises of docs/assurance.md, and ends with a line for each thing that was tried and how often. Fails if one of
# tests/assurance.list is missing. `assurance.sh --judge LOG` does no more than that with the output of an earlier run.
set -euo pipefail
cd "$(dirname "$0")/.."

# Prints the table of what a log shows, and fails if it is not all that there has to be.
judge() {
  grep -o 'assurance: .*' "$1" | sed 's/^assurance: //' | sort |
    awk -F ': ' '{ printf "%-14s %-96s %12s\n", $1, $2, $3 }'
  awk '
    NR == FNR && /^(#|$)/ { next }
    NR == FNR { free = sub(/ \(may be 0\)$/, ""); listed[$0] = 1; may_be_zero[$0] = free; next }
    !match($0, /assurance: .*/) { next }
    {
      line = substr($0, RSTART + 11)
      name = line; sub(/: [^:]*$/, "", name)
      count = line; sub(/.*: /, "", count)
      shown[name] = 1
      if (!(name in listed)) { print "NOT IN tests/assurance.list: " name; bad = 1 }
      else if (count !~ /^[0-9]+$/ || (count == 0 && !may_be_zero[name])) { print "NEVER TRIED: " name ": " count; bad = 1 }
    }
    END {
      for (name in listed) if (!(name in shown)) { print "NOT SHOWN: " name; bad = 1 }
      exit bad
    }' tests/assurance.list "$1" >&2
}
if [ "${1:-}" = --judge ]; then
  judge "$2"
  exit
fi

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
run "$cargo" test --locked --profile assurance --test durable_first --test never_two --test fail_closed --test powercut \
  -- --nocapture
unset HIGHWATER_STEPS HIGHWATER_KILLS HIGHWATER_SEED
run "$cargo" test --locked --test project broken_variants -- --include-ignored --nocapture

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
judge "$log"
