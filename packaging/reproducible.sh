#!/bin/sh
# Builds the package in two folders and compares program and package byte by byte. Takes two release builds.
set -eu
cd "$(dirname "$0")/.."

aside=$(mktemp -d "${TMPDIR:-/tmp}/highwater-reproducible.XXXXXX")
trap 'rm -rf "$aside"' EXIT
trap 'exit 1' HUP INT TERM

# The two paths differ, and so do their lengths.
first="$aside/a" second="$aside/another place, with another length"
for folder in "$first" "$second"; do
    mkdir -p "$folder"
    git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -c | tar -C "$folder" -xm
    "$folder/packaging/build.sh"
done

differ=0
for file in target/package/release/highwater $(cd "$first" && ls target/debian/*.deb); do
    if cmp "$first/$file" "$second/$file"; then
        echo "identical: $(sha256sum "$first/$file" | cut -d ' ' -f 1)  $(basename "$file")"
    else
        differ=1
    fi
done
for path in "$aside" "${CARGO_HOME:-$HOME/.cargo}"; do
    if grep -qF "$path" "$first/target/package/release/highwater"; then
        echo "the program holds the path $path"
        differ=1
    fi
done
exit "$differ"
