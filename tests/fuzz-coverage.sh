#!/bin/sh
# One fuzz target led by coverage, for a minute unless told otherwise: `fuzz-coverage.sh TARGET [ARGUMENTS OF libFuzzer...]`.
# It needs a nightly toolchain and cargo-fuzz (`cargo install cargo-fuzz`). What it finds goes to fuzz/artifacts; a finding that is
# mended moves to fuzz/corpus/TARGET, where `make test` reads it.
set -eu
cd "$(dirname "$0")/.."
target="$1"
shift
if [ $# -eq 0 ]; then
	set -- -max_total_time=60
fi
mkdir -p "fuzz/found/$target" "fuzz/corpus/$target"
cargo +nightly fuzz run --fuzz-dir fuzz "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- "$@"
