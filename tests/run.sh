#!/bin/sh
# Runs every test with real servers on loopback; a component that is missing is a failure here.
# aws-sdk-ec2 takes minutes and up to 8 GB to compile: what does not need it comes first, and it is built once, by one command.
set -eu
cd "$(dirname "$0")/.."
export KASM_REAL="${KASM_REAL:-required}"
# No test may ask a cloud's metadata address.
export AWS_EC2_METADATA_DISABLED=true
# Property tests draw the same cases every time here, so that a run says something of the change alone. Plain `cargo test`
# draws new ones; what it finds is worth a test of its own.
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"
cargo="${CARGO:-cargo}"

echo "== the core alone: no default features, no_std"
$cargo build --locked --package kasm-autoscale-core --no-default-features
$cargo test --locked --package kasm-autoscale-core --features testing
echo "== simulated worlds with fixed seeds, more than 300 pool-years; everything worth seeing must have been seen, and often"
soak="$cargo run --quiet --locked --package kasm-autoscale-core --features testing --example soak"
$soak --profile proof -- --seeds 36000 --threads 2 --all-seen --goals
echo "== worlds are the same in debug and in release builds, on one thread and on two"
# Into variables first: a run that fails must end this script, not compare as equal to another one that fails.
debug=$($soak -- --seeds 12 --traces)
release=$($soak --profile proof -- --seeds 12 --traces)
[ "$debug" = "$release" ]
one=$($soak --profile proof -- --seeds 200 --traces --threads 1)
two=$($soak --profile proof -- --seeds 200 --traces --threads 2)
[ "$one" = "$two" ]
echo "== tapes of worlds that once failed; the host dies at every save of every story, in every way, and twice in short ones"
$cargo test --profile proof --locked --package kasm-autoscale-core --features testing --test world --test crash_sweep -- --ignored --nocapture
echo "== every order of events that small pools can meet"
$cargo run --quiet --profile proof --locked --package kasm-autoscale-core --features testing --example model -- --at-least 10000000
echo "== the demo, as the README's first command runs it"
$cargo build --locked --package kasm-daemon --no-default-features
demo=$($cargo run --quiet --locked --package kasm-daemon --no-default-features -- demo --for 10s)
echo "$demo" | tail -n 5
echo "$demo" | grep -q "^left behind  *0 machines$"
echo "== Azure"
$cargo test --locked --package kasm-providers --features azure
echo "== everything else, AWS included"
$cargo test --locked --workspace --exclude kasm-autoscale-core --all-features
echo "== a slice of the fuzz targets on the stable toolchain, and libFuzzer's ways into them build"
$cargo test --locked --release --no-default-features --manifest-path fuzz/Cargo.toml
$cargo check --locked --manifest-path fuzz/Cargo.toml
