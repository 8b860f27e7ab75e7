#!/bin/sh
# The whole story with a real machine. The image is built once and kept in the user's cache, or where KASM_STORY_IMAGE says.
# With `--if-cached`, nothing is built: without an image the story is left out, and that is said.
set -eu
cd "$(dirname "$0")/../.."
export KASM_STORY_IMAGE="${KASM_STORY_IMAGE:-${XDG_CACHE_HOME:-$HOME/.cache}/kasm-autoscale/story}"
if [ "${1:-}" = --if-cached ] && ! sh tests/story/image.sh --check "$KASM_STORY_IMAGE"; then
	echo "story: left out, since its image is not built; \`make story\` builds it and tells the story"
	exit 0
fi
sh tests/story/image.sh "$KASM_STORY_IMAGE"
"${CARGO:-cargo}" test --locked --package kasm-daemon --no-default-features --test story -- --nocapture
