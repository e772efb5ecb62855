#!/bin/sh
# Installs the Debian packages named on the command line if they are missing and root runs this:
#
#     tests/install/debian.sh PACKAGE...
#
# Without root it says what is missing; the tests that need it say so and are skipped. Only in CI they fail.
set -eu

say() {
    echo "*** debian.sh: $*" >&2
}

if ! command -v dpkg-query >/dev/null; then
    say "NOT CHECKED: $*. This is not Debian: install packages with the same programs."
    [ "${CI:-}" = true ] && exit 1
    exit 0
fi

missing=""
for package in "$@"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    say "NOT INSTALLED:$missing. As root, run: apt-get install -y$missing"
    [ "${CI:-}" = true ] && exit 1
    exit 0
fi

say "installing$missing"
apt-get update -qq
# Split the list: one word for each package.
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
