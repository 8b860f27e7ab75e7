#!/bin/sh
# Tests the tests: plants one mistake after the other in the core, each of which a simulated world must find within a minute,
# and some of which the model checker must find, which goes through all that can happen to small pools.
# The first world that found one is kept as a tape, `kasm-autoscale-core/tests/replays/MISTAKE.tape`: with the mistake it must
# fail, and `tests/world.rs` lives it through without. `sh tests/mutants.sh --record [MISTAKE...]` makes them anew, as when worlds
# have changed so that a tape tells another one.
# It has a target folder of its own, since builds with mistakes must never be mixed up with others.
set -eu
cd "$(dirname "$0")/.."
cargo="${CARGO:-cargo}"
export CARGO_TARGET_DIR="${KASM_MUTANTS_TARGET:-${CARGO_TARGET_DIR:-target}/mutants}"
export RUSTFLAGS="--cfg kasm_mutants"
$cargo build --release --quiet --locked --package kasm-autoscale-core --features testing --example soak --example model
model="$CARGO_TARGET_DIR/release/examples/model"
soak="$CARGO_TARGET_DIR/release/examples/soak"
mutants=$("$soak" --mutants)
replays=kasm-autoscale-core/tests/replays
# Seeds that are not those of the ordinary run. Some mistakes show in one world of some thousands only, so it is the seeds' luck
# how soon; with these each is found within the minute.
from_of() {
    case $1 in
    enrolments-end-with-their-process) echo 5012000 ;;
    *) echo 9000000 ;;
    esac
}
if [ "${1:-}" = --record ]; then
    shift
    for mutant in ${*:-$mutants}; do
        # Of the first worlds that fail the shortest one, made shorter still.
        "$soak" --mutant "$mutant" --seeds 1000000 --from "$(from_of "$mutant")" --threads "$(nproc)" --seconds 300 --failures 4 \
            --record "$replays/$mutant.tape" --shrink 300 | grep " after shrinking" || echo "NOT FOUND  $mutant"
    done
    exit
fi
missed=""
for tape in "$replays"/*.tape; do
    mutant=$(basename "$tape" .tape)
    echo "$mutants" | grep -qx -- "$mutant" || {
        missed="$missed $tape(no-such-mistake)"
        continue
    }
    broken=$(sed -n '1s/^# \(.*\); found with.*/\1/p' "$tape")
    output=$("$soak" --mutant "$mutant" --replay "$tape" 2>&1) || true
    if ! echo "$output" | grep -qF -- "${broken:-no promise is named in $tape}"; then
        missed="$missed $tape"
        echo "NOT SHOWN  $mutant, by its tape"
    fi
done
for mutant in $mutants; do
    [ -s "$replays/$mutant.tape" ] || missed="$missed $mutant(no-tape)"
    if output=$("$soak" --mutant "$mutant" --seeds 1000000 --from "$(from_of "$mutant")" --threads "$(nproc)" --seconds 60 --failures 1 2>&1); then
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
for pair in create-sent-again:making lost-create-is-failure:making lag-skipped:making lost-delete-is-done:making \
    only-ready-counts-against-the-cap:making sessions-not-looked-at-before-delete:wishes \
    only-ready-counts-against-the-cap:two-crashes lost-create-is-failure:two-losses lag-skipped:no-sessions \
    lost-delete-is-done:one-config; do
    mutant=${pair%:*} plan=${pair#*:}
    # Stopped by the clock it has found nothing, and has not shown that there is nothing.
    output=$(timeout 120 "$model" --only "$plan" --mutant "$mutant" 2>&1) && status=0 || status=$?
    if [ "$status" = 1 ] && echo "$output" | grep -q ": broken after$"; then
        echo "$output" | awk -v mutant="$mutant" '/: broken after$/ { sub(/: broken after$/, ""); printf "%-40s the model checker: %.90s\n", mutant, $0 }'
    else
        missed="$missed $mutant(model)"
        echo "NOT FOUND  $mutant, by the model checker"
    fi
done
if [ -n "$missed" ]; then
    echo "planted mistakes that were not found:$missed" >&2
    exit 1
fi
