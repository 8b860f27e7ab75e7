#!/bin/sh
# Runs every test with real servers on loopback; a component that is missing is a failure here.
# The order keeps the machine small: aws-sdk-ec2 takes up to 8 GB to compile, so it is never built by two commands at once.
set -eu
cd "$(dirname "$0")/.."
export KASM_REAL="${KASM_REAL:-required}"
export KASM_MOTO_SERVER="${KASM_MOTO_SERVER:-$PWD/.tools/moto/bin/moto_server}"
# No test may ask a cloud's metadata address.
export AWS_EC2_METADATA_DISABLED=true
cargo="${CARGO:-cargo}"

echo "== core alone: no default features, no_std"
$cargo build --locked --package kasm-autoscale-core --no-default-features
echo "== everything but AWS"
$cargo test --locked --package kasm-autoscale-core --features testing
$cargo test --locked --package kasm-ad --package kasm-benches
$cargo test --locked --package kasm-daemon --no-default-features
echo "== everything, AWS included"
$cargo test --locked --package kasm-providers --all-features
$cargo test --locked --package kasm-daemon
