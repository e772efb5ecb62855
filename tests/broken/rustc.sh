#!/bin/sh
# Cargo calls this in the place of rustc for our own crate (RUSTC_WORKSPACE_WRAPPER), so that it alone is built broken.
exec "$@" --cfg highwater_broken
