#!/bin/sh
# All fuzz targets on the stable toolchain, on two threads: examples that a generator with a fixed seed changes. A run that names
# its targets or its share with options of its own is not held to six million inputs.
set -eu
cd "$(dirname "$0")/.."
cargo="${CARGO:-cargo}"
if [ $# -eq 0 ]; then
	set -- --at-least 6000000
fi
$cargo run --quiet --locked --release --no-default-features --manifest-path fuzz/Cargo.toml --bin seeded -- --threads 2 "$@"
