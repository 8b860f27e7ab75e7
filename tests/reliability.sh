#!/bin/sh
# Runs everything that proves the core and the API, and writes RELIABILITY.md of what the runs say of themselves. What fails
# ends it, and leaves the page as it was.
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

# Shows a command's output, keeps it for the page, and fails as the command does.
kept() {
    name=$1
    shift
    echo "== $name"
    if ! "$@" >"$folder/$name" 2>&1; then
        cat "$folder/$name" >&2
        exit 1
    fi
    cat "$folder/$name"
}
core="--profile proof --quiet --locked --package kasm-autoscale-core --features testing"
worlds="--seeds 36000 --threads 2 --all-seen --goals"
kept worlds $cargo run $core --example soak -- $worlds --report "$folder/worlds.md"
kept model $cargo run $core --example model -- --at-least 10000000
kept sweep $cargo test $core --test crash_sweep -- --ignored --nocapture
kept fuzz sh tests/fuzz.sh
kept abuse ${MAKE:-make} --no-print-directory abuse CARGO="$cargo"
kept mutants sh tests/mutants.sh

# The lines of a run that match, as a block.
block() {
    printf '\n```text\n'
    grep -E "$2" "$folder/$1"
    printf '```\n'
}
{
    echo "# Reliability"
    echo
    echo "Written by \`make reliability\`, never by hand, of commit $(git rev-parse --short=12 HEAD) on a machine with $(nproc) cores. What the"
    echo "numbers I-01 and so on stand for is written where they are checked: \`kasm-autoscale-core/src/testing/world\`."
    printf '\n## Simulated worlds\n\n`cargo run --profile proof -p kasm-autoscale-core --features testing --example soak -- %s`\n\n' "$worlds"
    cat "$folder/worlds.md"
    printf '\n## Every order of events in small pools\n\n`make model`; a promise that is broken ends the run.\n'
    block model 'transitions'
    printf '\n## The death of the host at every save\n\n`cargo test --profile proof -p kasm-autoscale-core --features testing --test crash_sweep -- --ignored --nocapture`\n'
    block sweep '^[0-9]+ stories'
    printf '\n## Fuzzing\n\n`make fuzz`; how many inputs were valid, and how many were refused.\n'
    block fuzz '^[a-z_]+ +[0-9]+|^target'
    printf '\n## Hostile requests\n\n`make abuse`\n'
    block abuse '^ *[0-9]+  |^[a-z]+ [a-z ]*  +[0-9]|^(memory|seed|requests|answers) '
    printf '\n## Planted mistakes\n\n`make mutants`; after how many worlds each was found, and by what.\n'
    block mutants 'worlds,'
} >"$folder/$page"
mv "$folder/$page" "$page"
