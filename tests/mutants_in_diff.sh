#!/usr/bin/env bash
# Changes the lines that a change touches in every small way, in the files that MUTATED names; the unit tests must notice. The
# change is what differs from origin/main, or from the commit before where there is no such branch or we are on it. Ends after
# HIGHWATER_MUTANTS_SECONDS (default 360), and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
seconds=${HIGHWATER_MUTANTS_SECONDS:-360}
read -r -a files <<<"${MUTATED:?names the files whose mutants are run, as the Makefile does}"
[ -e "${files[0]}" ] || { echo "there is no ${files[0]}" >&2; exit 1; }

base=$(git merge-base HEAD origin/main 2>/dev/null || true)
if [ -z "$base" ] || [ "$base" = "$(git rev-parse HEAD)" ]; then
  base=$(git rev-parse --verify --quiet HEAD~1 || true)
fi
if [ -z "$base" ]; then
  echo '*** NOT CHECKED: mutants: there is no earlier commit to compare with ***'
  exit 0
fi
output=${CARGO_TARGET_DIR:-target}/mutants-in-diff
mkdir -p "$output"
git diff "$base" -- "${files[@]}" >"$output/change.diff"
if ! [ -s "$output/change.diff" ]; then
  echo "mutants: nothing was changed in ${files[*]} since ${base:0:12}"
  exit 0
fi
if ! tests/install/cargo-mutants.sh; then
  echo '*** NOT CHECKED: mutants: cargo-mutants cannot be installed ***'
  exit 0
fi

rm -rf "$output/mutants.out"
# A folder that stays: the dependencies are compiled once. That the tests pass without a mutant is for `make test` to say.
CARGO_TARGET_DIR=$(realpath "$output")/target
export CARGO_TARGET_DIR
result=0
timeout --signal=INT "$seconds" nice "$cargo" mutants -j1 --baseline skip --in-diff "$output/change.diff" --timeout 60 \
  --output "$output" "${files[@]/#/--file=}" -- --locked --lib || result=$?
missed=$output/mutants.out/missed.txt
if [ -s "$missed" ]; then
  printf 'no test notices:\n'
  cat "$missed"
  exit 1
fi
case $result in
  0) ;;
  # Stopped by `timeout`.
  124) printf '*** NOT CHECKED: mutants: %s s were not enough; %s were tried, and each was noticed ***\n' "$seconds" \
    "$(cat "$output/mutants.out/caught.txt" 2>/dev/null | wc -l)" ;;
  # A mutant that never ends is noticed too.
  3) ;;
  *) exit "$result" ;;
esac
