#!/bin/sh
# Runs everything that proves the core and the API, or the parts that are named, and writes RELIABILITY.md of what the runs say
# of themselves. Each part names the commit that it is of; a part that is not run stays as it was. What fails ends it, and
# leaves the page as it was. `sh tests/reliability.sh long` runs the parts that take longer than half an hour or need a nightly
# toolchain: soak, deep and coverage.
set -eu
cd "$(dirname "$0")/.."
cargo="${CARGO:-cargo}"
page=RELIABILITY.md
if [ -n "$(git status --porcelain -- . ":!$page")" ]; then
    echo "commit first: the page names the commit that it is of" >&2
    exit 1
fi
commit=$(git rev-parse --short=12 HEAD)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
parts="worlds soak model deep sweep fuzz coverage abuse mutants"

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
title_of() {
    case $1 in
    worlds) echo "Simulated worlds" ;;
    soak) echo "Simulated worlds, ten times as many" ;;
    model) echo "Every order of events in small pools" ;;
    deep) echo "Further orders of events" ;;
    sweep) echo "The death of the host at every save" ;;
    fuzz) echo "Fuzzing" ;;
    coverage) echo "Fuzzing led by coverage" ;;
    abuse) echo "Hostile requests" ;;
    mutants) echo "Planted mistakes" ;;
    *)
        echo "$1 is none of long, $parts" >&2
        exit 1
        ;;
    esac
}
soak_of() {
    kept "$1" $cargo run $core --example soak -- $2 --report "$folder/$1.md"
    printf '`cargo run --profile proof -p kasm-autoscale-core --features testing --example soak -- %s`\n\n' "$2"
    cat "$folder/$1.md"
}

core="--profile proof --quiet --locked --package kasm-autoscale-core --features testing"
run_part() {
    case $1 in
    worlds) soak_of worlds "--seeds 36000 --threads 2 --all-seen --goals" ;;
    soak) soak_of soak "--from 1000000 --seeds 310000 --threads 2 --all-seen --goals --years 3000" ;;
    model)
        kept model $cargo run $core --example model -- --at-least 10000000
        echo '`make model`; a promise that is broken ends the run.'
        block model 'transitions'
        ;;
    deep)
        kept deep $cargo run $core --example model -- --deep
        echo '`make model-deep`; more faults at once in every order, then all bounds at once on random ways.'
        block deep 'transitions'
        ;;
    sweep)
        kept sweep $cargo test $core --test crash_sweep -- --ignored --nocapture
        echo '`cargo test --profile proof -p kasm-autoscale-core --features testing --test crash_sweep -- --ignored --nocapture`'
        block sweep '[0-9]+ stories'
        ;;
    fuzz)
        kept fuzz sh tests/fuzz.sh
        echo '`make fuzz`; how many inputs were valid, and how many were refused.'
        block fuzz '^[a-z_]+ +[0-9]+|^target'
        ;;
    coverage)
        kept coverage sh tests/fuzz-coverage.sh all
        echo '`make fuzz-coverage TARGET=all`; a minute each with libFuzzer, how much of the code was reached, and how many inputs reached more.'
        block coverage '^[a-z_]+ +[0-9]+ +[0-9]+ +[0-9]+$|^target'
        ;;
    abuse)
        kept abuse "${MAKE:-make}" --no-print-directory abuse CARGO="$cargo"
        echo '`make abuse`'
        block abuse '^ *[0-9]+  |^[a-z ]+  +[0-9]'
        ;;
    mutants)
        kept mutants sh tests/mutants.sh
        echo '`make mutants`; after how many worlds each was found, and by what.'
        block mutants 'worlds,|the model checker'
        ;;
    esac
}

chosen="${*:-worlds model sweep fuzz abuse mutants}"
[ "$chosen" != long ] || chosen="soak deep coverage"
for part in $chosen; do
    title_of "$part" >"$folder/title"
done
for part in $chosen; do
    run_part "$part" >"$folder/$part.section"
done
{
    echo "# Reliability"
    echo
    echo "Written by \`make reliability\`, never by hand. What the numbers I-01 and so on stand for is written where they are checked:"
    echo "\`kasm-autoscale-core/src/testing/world\`."
    for part in $parts; do
        title=$(title_of "$part")
        if [ -e "$folder/$part.section" ]; then
            printf '\n## %s\n\nOf commit %s, on a machine with %s cores.\n\n' "$title" "$commit" "$(nproc)"
            cat "$folder/$part.section"
        elif [ -e "$page" ]; then
            # As the page has it, from its title to the next one.
            awk -v title="## $title" '/^## / { inside = ($0 == title) } inside' "$page" | sed -e '1s/^/\n/' -e '${/^$/d}'
        fi
    done
} >"$folder/$page"
mv "$folder/$page" "$page"
