#!/bin/sh
# Tests the tests: plants one mistake after the other in the core, each of which a simulated world must find within a minute.
# It has a target folder of its own, since builds with mistakes must never be mixed up with others.
set -eu
cd "$(dirname "$0")/.."
cargo="${CARGO:-cargo}"
export CARGO_TARGET_DIR="${KASM_MUTANTS_TARGET:-${CARGO_TARGET_DIR:-target}/mutants}"
export RUSTFLAGS="--cfg kasm_mutants" CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0
$cargo build --quiet --locked --package kasm-autoscale-core --features testing --example soak
soak="$CARGO_TARGET_DIR/debug/examples/soak"
mutants=$("$soak" --mutants)
missed=""
for mutant in $mutants; do
    # Seeds that are not those of the ordinary run.
    if output=$("$soak" --mutant "$mutant" --seeds 1000000 --from 5000000 --seconds 60 --failures 1 2>&1); then
        missed="$missed $mutant"
        echo "NOT FOUND  $mutant"
    else
        echo "$output" | awk -v mutant="$mutant" '
            found == 1 { what = $0; found = 2 }
            /^seed [0-9]+ failed$/ { found = 1 }
            /^seeds / { tried = $4 - $2 + 1; seconds = $(NF - 1) }
            END { printf "%-40s %4d worlds, %3d s: %.90s\n", mutant, tried, seconds, what }'
    fi
done
if [ -n "$missed" ]; then
    echo "planted mistakes that no world has found:$missed" >&2
    exit 1
fi
