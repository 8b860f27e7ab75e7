#!/bin/sh
# One fuzz target led by coverage, or `all` of them one after the other, for a minute each unless told otherwise:
# `fuzz-coverage.sh TARGET [ARGUMENTS OF libFuzzer...]`.
# It needs a nightly toolchain and cargo-fuzz (`cargo install cargo-fuzz`). What it finds goes to fuzz/artifacts; a finding that is
# mended moves to fuzz/corpus/TARGET, where `make test` reads it.
set -eu
cd "$(dirname "$0")/.."
target="$1"
shift
if [ $# -eq 0 ]; then
	set -- -max_total_time=60
fi

fuzz() {
	target=$1
	shift
	mkdir -p "fuzz/found/$target" "fuzz/corpus/$target"
	cargo +nightly fuzz run --fuzz-dir fuzz "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- "$@"
}

if [ "$target" != all ]; then
	fuzz "$target" "$@"
	exit
fi
cargo +nightly fuzz build --fuzz-dir fuzz
log=$(mktemp)
trap 'rm -f "$log"' EXIT
printf '%-10s %12s %10s %10s\n' target inputs edges kept
failed=""
for file in fuzz/fuzz_targets/*.rs; do
	name=$(basename "$file" .rs)
	if fuzz "$name" "$@" -print_final_stats=1 >"$log" 2>&1; then
		awk -v name="$name" '
			/ cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") edges = $(i + 1); if ($i == "corp:") kept = $(i + 1) } }
			/^stat::number_of_executed_units/ { inputs = $2 }
			END { sub("/.*", "", kept); printf "%-10s %12d %10d %10d\n", name, inputs, edges, kept }' "$log"
	else
		failed="$failed $name"
		echo "== $name"
		tail -n 60 "$log"
	fi
done
if [ -n "$failed" ]; then
	echo "broken promises in:$failed" >&2
	exit 1
fi
