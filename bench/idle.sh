#!/usr/bin/env bash
# Measures the memory of an idle `character up`: all its processes, after a minute of nothing.
#
#   bench/idle.sh [BINARY]        default bin/character; SECONDS_IDLE=60 waits, LIMIT_MB=300 fails above it
#
# Three processes run one program, so most of their pages are the same ones: the sum of PSS (a page that N processes share
# counts 1/N in each) is what the machine gives. The sum of RSS counts shared pages once for each process; "own" is what
# no file backs. Linux only.
set -euo pipefail
binary=$(realpath "${1:-bin/character}")
seconds=${SECONDS_IDLE:-60} limit=${LIMIT_MB:-300}
dir=$(mktemp -d)
# A copy: pages of a program that runs elsewhere, too, would count for less.
cp "$binary" "$dir/character"
pid=
stop() {
	if [ -n "$pid" ]; then kill -INT "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
	rm -rf "$dir"
}
trap stop EXIT

# family PID: the process and all that it started.
family() {
	local child
	echo "$1"
	for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do family "$child"; done
}

over=0
for kind in "up --no-worker" "up"; do
	# shellcheck disable=SC2086
	"$dir/character" --data "$dir/data" $kind >"$dir/log" 2>&1 &
	pid=$!
	for _ in $(seq 600); do
		if grep -q 'Ctrl-C stops it' "$dir/log"; then break; fi
		if ! kill -0 "$pid" 2>/dev/null; then cat "$dir/log" >&2; exit 1; fi
		sleep 0.1
	done
	sleep "$seconds"
	pss=0 rss=0 own=0 n=0
	for p in $(family "$pid"); do
		read -r a b c < <(awk '/^Rss:/{r=$2} /^Pss:/{p=$2} /^Pss_Anon:/{a=$2} END{print p, r, a}' "/proc/$p/smaps_rollup")
		pss=$((pss + a)) rss=$((rss + b)) own=$((own + c)) n=$((n + 1))
	done
	printf '%-15s %d processes, idle for %s s: PSS %d MB (own %d MB), RSS summed %d MB\n' "$kind" "$n" "$seconds" $((pss / 1000)) $((own / 1000)) $((rss / 1000))
	if [ $((pss / 1000)) -gt "$limit" ]; then over=1; fi
	kill -INT "$pid"
	wait "$pid" || true
	pid=
done
if [ "$over" = 1 ]; then echo "idle: over $limit MB" >&2; exit 1; fi
