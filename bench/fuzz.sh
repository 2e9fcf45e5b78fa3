#!/usr/bin/env bash
# Every fuzz target of the project, each until it has had N inputs. Ends non-zero when one of them found something.
#
#   N        inputs a target, 1000000 unless told: those of earlier invocations count, so that a big number can be reached in pieces
#   LIMIT    seconds that this invocation spends on one target at most; 0, or nothing: no limit
#   ONLY     a regular expression on folder/FuzzName: which targets to run
#   WORKERS  processes at a time, one a core unless told
#   MEMORY   MiB of address space that one process may have, 6144 unless told
#   TABLE    1: run nothing, print what all invocations did as a table of Markdown
#
# .fuzz/log (outside git) has a line for each invocation of a target: date, commit, target, inputs, seconds, result. Remove it to begin
# anew. Ctrl-C keeps what was done. Interesting inputs are kept in Go's own fuzz cache, and a later invocation begins with them.
# The targets of cmd/ run without coverage guidance. A finding stays in testdata/fuzz beside the target: mend the code and commit the file, it is a test from then on.
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
N=${N:-1000000} LIMIT=${LIMIT:-0} ONLY=${ONLY:-.} WORKERS=${WORKERS:-$(getconf _NPROCESSORS_ONLN)} MEMORY=${MEMORY:-6144}
root=$PWD log=$PWD/.fuzz/log
for v in N LIMIT WORKERS MEMORY; do
	[[ ${!v} =~ ^[0-9]{1,12}$ ]] || { echo "make fuzz: $v=${!v} is not a whole number" >&2; exit 1; }
done
targets=$(git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -H '^func Fuzz' | sed -E 's|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(.*|\1/\2|' | sort | grep -E "$ONLY" || true)
[ -n "$targets" ] || { echo "make fuzz: no fuzz target matches ONLY=$ONLY" >&2; exit 1; }
mkdir -p .fuzz
touch "$log"
done_before() { awk -v t="$1" '$3 == t { n += $4 } END { printf "%d", n }' "$log"; }
if [ "${TABLE:-}" = 1 ]; then
	echo '| target | inputs | found |'
	echo '|---|---|---|'
	for target in $targets; do
		awk -v t="$target" '$3 == t { n += $4; if ($6 == "FAIL") f++ } END { s = sprintf("%d", n); while (s ~ /[0-9][0-9][0-9][0-9]/) sub(/[0-9][0-9][0-9]($|,)/, ",&", s); printf "| `%s` | %s | %s |\n", t, s, f ? f : n ? "nothing" : "not run" }' "$log"
	done
	exit
fi
module=$(go list -m) cache=$(go env GOCACHE)/fuzz commit=$(git rev-parse --short HEAD)
bin=$(mktemp -d)
out=$bin/out pid=''
trap 'rm -rf "$bin"' EXIT
interrupted=''
trap 'interrupted=1; [ -z "$pid" ] || kill -INT "$pid" 2>/dev/null || true' INT TERM
# The soft limit makes Go collect before the hard one ends the process.
export GOMEMLIMIT=$((MEMORY / 3))MiB
inputs() { sed -nE 's/^fuzz: elapsed.*execs: ([0-9]+).*/\1/p' "$out" | tail -1; }
printf '%-48s %11s %11s %12s %8s  %s\n' target inputs 'in all' interesting seconds result
failed=0
for target in $targets; do
	[ -z "$interrupted" ] || break
	folder=${target%/*} name=${target##*/}
	before=$(done_before "$target")
	if [ "$before" -ge "$N" ]; then
		printf '%-48s %11s %11s %12s %8s  %s\n' "$target" - "$before" - - 'had them before'
		continue
	fi
	test=$bin/${folder//\//_}.test
	guided=(-fuzz="^$name\$")
	# A whole Temporal server is behind these: to compile it once more, instrumented, would cost many minutes.
	case $folder in cmd/*) guided=() ;; esac
	if [ ! -e "$test" ] && ! (cd "$folder" && go test -c "${guided[@]}" -tags noserver -vet=off -o "$test" . >"$out" 2>&1); then
		cat "$out" >&2
		printf '%-48s %11s %11s %12s %8s  %s\n' "$target" - "$before" - - 'does not build'
		failed=1
		continue
	fi
	start=$SECONDS result=ok
	: >"$out"
	(
		cd "$folder"
		ulimit -v $((MEMORY << 10)) 2>/dev/null || true # not everywhere
		exec "$test" -test.run='^$' -test.fuzz="^$name\$" -test.fuzztime="$((N - before))x" -test.parallel="$WORKERS" -test.fuzzcachedir="$cache/$module/$folder"
	) >"$out" 2>&1 &
	pid=$! told=$SECONDS stopped=''
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		if [ -z "$stopped" ] && [ "$LIMIT" -gt 0 ] && [ $((SECONDS - start)) -ge "$LIMIT" ]; then
			stopped=1
			kill -INT "$pid" 2>/dev/null || true
		fi
		if [ $((SECONDS - told)) -ge 30 ]; then
			told=$SECONDS n=$(inputs)
			echo "  $target: $((before + ${n:-0})) of $N, $((${n:-0} / (SECONDS - start))) a second" >&2
		fi
	done
	wait "$pid" || result=FAIL
	pid=''
	n=$(inputs) new=$(sed -nE 's/.*new interesting: ([0-9]+).*/\1/p' "$out" | tail -1)
	printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$(date -u +%FT%TZ)" "$commit" "$target" "${n:-0}" "$((SECONDS - start))" "$result" >>"$log"
	total=$((before + ${n:-0}))
	[ "$result" = ok ] && [ "$total" -lt "$N" ] && result="ok so far; another make fuzz goes on"
	printf '%-48s %11s %11s %12s %8s  %s\n' "$target" "${n:--}" "$total" "${new:--}" "$((SECONDS - start))" "$result"
	if [ "$result" = FAIL ]; then
		failed=1
		grep -vE '^fuzz: elapsed' "$out" | tail -60 >&2
		git -C "$root" status --short -- "$folder/testdata/fuzz" >&2
	fi
done
[ -z "$interrupted" ] || exit 130
exit $failed
