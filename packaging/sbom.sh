#!/bin/sh
# Lists every crate that is linked into the program or builds it, as CycloneDX: target/highwater.cdx.json.
set -eu
cd "$(dirname "$0")/.."

mkdir -p target
cargo cyclonedx --quiet --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu --override-filename highwater.cdx
# cargo-cyclonedx can only write beside Cargo.toml, and the file names this folder.
sed "s|file://$PWD|file:///highwater|g" highwater.cdx.json >target/highwater.cdx.json
rm highwater.cdx.json core/highwater.cdx.json
echo "target/highwater.cdx.json: $(grep -c '"purl"' target/highwater.cdx.json) components"
