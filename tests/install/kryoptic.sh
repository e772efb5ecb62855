#!/bin/sh
# Installs the Kryoptic that tests/devices/pkcs11.rs runs as a second PKCS#11 module, at the path where the test looks for it:
#
#     ${XDG_CACHE_HOME:-$HOME/.cache}/highwater/kryoptic-1.5.4/libkryoptic_pkcs11.so
#
# Builds it only if it is missing, from the cargo registry, with the installed cargo, and with a separate OpenSSL, because it
# needs 3.2 or later. Nothing else on the machine changes except cargo's own caches. Two runs at once are safe: each builds
# in its own directory and then renames the result.
set -eu

VERSION=1.5.4
OPENSSL=300.5.5
LIBRARY=libkryoptic_pkcs11.so

say() {
    echo "*** kryoptic.sh: $*" >&2
}

parent="${XDG_CACHE_HOME:-$HOME/.cache}/highwater"
root="$parent/kryoptic-$VERSION"
if [ -e "$root/$LIBRARY" ]; then
    say "$VERSION is already installed: $root/$LIBRARY"
    exit 0
fi

# libclang makes its bindings to OpenSSL.
"$(dirname "$0")/debian.sh" gcc libclang-dev make perl

mkdir -p "$root"
aside=$(mktemp -d "$parent/.building.XXXXXX")
finished() {
    status=$?
    if [ "$status" -ne 0 ] && [ "$status" -ne 130 ]; then
        tail -n 20 "$aside/log" >&2
        say "NOT INSTALLED: the build failed, see above. It needs a C compiler, make, perl and libclang."
        # Without it its tests say so and are skipped; only in CI they fail.
        [ "${CI:-}" = true ] || status=0
    fi
    rm -rf "$aside"
    exit "$status"
}
trap finished EXIT
trap 'exit 130' HUP INT TERM

# A package that only names both sources, because cargo cannot install a library.
mkdir "$aside/src"
: >"$aside/src/lib.rs"
cat >"$aside/Cargo.toml" <<END
[package]
name = "build-kryoptic"
version = "0.0.0"
edition = "2024"

[dependencies]
kryoptic = { version = "=$VERSION", default-features = false, features = ["standard"] }
openssl-src = "=$OPENSSL"
# Without this feature it is not linked with OpenSSL at all.
ossl = { version = "=$VERSION", default-features = false, features = ["ossl-sys"] }

[workspace]
END

say "building $VERSION with $(cargo --version) and OpenSSL: takes three minutes or more"
cd "$aside"
build() {
    cargo fetch
    manifest=$(cargo metadata --offline --format-version 1 |
        sed 's/.*"manifest_path":"\([^"]*\/openssl-src-[^"]*\)\/Cargo.toml".*/\1/')
    cp -R "$manifest/openssl" openssl
    # Kryoptic's own build needs parts of OpenSSL that this source lacks, but it accepts a library that is already built.
    cd openssl
    ./Configure no-shared no-module no-legacy no-apps no-docs no-tests no-engine
    make -s -j"$(nproc)" build_generated libcrypto.a
    cd ..
    KRYOPTIC_OPENSSL_SOURCES="$aside/openssl" cargo build --release --package kryoptic --target-dir target
}
build >log 2>&1
mv -f "target/release/$LIBRARY" "$root/$LIBRARY"
say "installed $VERSION: $root/$LIBRARY"
