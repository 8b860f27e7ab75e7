#!/bin/sh
# Runs everything that proves the core and the API, or the parts that are named, and writes RELIABILITY.md of what the runs say
# of themselves. What fails ends it, and leaves the page as it was.
set -eu
cd "$(dirname "$0")/.."
cargo="${CARGO:-cargo}"
page=RELIABILITY.md
if [ -n "$(git status --porcelain -- . ":!$page")" ]; then
    echo "commit first: the page names the commit that it is of" >&2
    exit 1
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Shows a command's output, keeps it for the page, and ends everything if it fails.
kept() {
    name=$1
    shift
    echo "== $name" >&2
    "$@" >"$folder/$name" 2>&1 || {
        cat "$folder/$name" >&2
        exit 1
    }
    cat "$folder/$name" >&2
}
# The lines of a part's output that match, as a block.
block() {
    printf '\n```text\n'
    grep -E "$2" "$folder/$1"
    printf '```\n'
}

core="--profile proof --quiet --locked --package kasm-autoscale-core --features testing"
seeds="--seeds 36000 --threads 2 --all-seen --goals"
{
    echo "# Reliability"
    echo
    echo "Written by \`make reliability\`, never by hand, of commit $(git rev-parse --short=12 HEAD) on a machine with $(nproc) cores. What the"
    echo "numbers I-01 and so on stand for is written where they are checked: \`kasm-autoscale-core/src/testing/world\`."
} >"$folder/$page"
for part in ${*:-worlds model sweep fuzz abuse mutants}; do
    case $part in
    worlds)
        kept $part $cargo run $core --example soak -- $seeds --report "$folder/worlds.md"
        printf '\n## Simulated worlds\n\n`cargo run --profile proof -p kasm-autoscale-core --features testing --example soak -- %s`\n\n' "$seeds"
        cat "$folder/worlds.md"
        ;;
    model)
        kept $part $cargo run $core --example model -- --at-least 10000000
        printf '\n## Every order of events in small pools\n\n`make model`; a promise that is broken ends the run.\n'
        block $part 'transitions'
        ;;
    sweep)
        kept $part $cargo test $core --test crash_sweep -- --ignored --nocapture
        printf '\n## The death of the host at every save\n\n`cargo test --profile proof -p kasm-autoscale-core --features testing --test crash_sweep -- --ignored --nocapture`\n'
        block $part '[0-9]+ stories'
        ;;
    fuzz)
        kept $part sh tests/fuzz.sh
        printf '\n## Fuzzing\n\n`make fuzz`; how many inputs were valid, and how many were refused.\n'
        block $part '^[a-z_]+ +[0-9]+|^target'
        ;;
    abuse)
        kept $part "${MAKE:-make}" --no-print-directory abuse CARGO="$cargo"
        printf '\n## Hostile requests\n\n`make abuse`\n'
        block $part '^ *[0-9]+  |^[a-z ]+  +[0-9]'
        ;;
    mutants)
        kept $part sh tests/mutants.sh
        printf '\n## Planted mistakes\n\n`make mutants`; after how many worlds each was found, and by what.\n'
        block $part 'worlds,|the model checker'
        ;;
    *)
        echo "$part is none of worlds, model, sweep, fuzz, abuse, mutants" >&2
        exit 1
        ;;
    esac >>"$folder/$page"
done
mv "$folder/$page" "$page"
