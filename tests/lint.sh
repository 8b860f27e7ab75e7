#!/bin/sh
# Format, lints and documentation, all warnings denied.
set -eu
cd "$(dirname "$0")/.."
cargo="${CARGO:-cargo}"
$cargo fmt --all --check
$cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
RUSTDOCFLAGS="-D warnings" $cargo doc --locked --workspace --no-deps --all-features
