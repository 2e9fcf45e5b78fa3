#!/usr/bin/env bash
# Every fuzz target of the project, each until it has had N inputs. Ends non-zero when one of them found something.
#
#   N        inputs a target, 1000000 unless told: those of earlier invocations count, so that a big number can be reached in pieces
#   LIMIT    seconds that this invocation spends on one target at most; 0, or nothing: no limit
#   ONLY     a regular expression on folder/FuzzName: which targets to run
#   WORKERS  processes at a time, one a core unless told
#   MEMORY   MiB of address space that one process may have, 6144 unless told
#   GUIDED   so many inputs of each target are made with coverage guidance, 100000 unless told; what that finds interesting is the
#            beginning of the others, which run without it, some fifty times as many a second
#   TABLE    1: run nothing, print what all invocations did as a table of Markdown
#
# .fuzz/log (outside git) has a line for each invocation of a target: date, commit, target, inputs, seconds, result, guided or plain.
# Remove it to begin anew. Ctrl-C keeps what was done. Interesting inputs are kept in Go's own fuzz cache, and a later invocation begins with them.
# A finding stays in testdata/fuzz beside the target: mend the code and commit the file, it is a test from then on.
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
N=${N:-1000000} LIMIT=${LIMIT:-0} ONLY=${ONLY:-.} WORKERS=${WORKERS:-$(getconf _NPROCESSORS_ONLN)} MEMORY=${MEMORY:-6144} GUIDED=${GUIDED:-100000}
root=$PWD log=$PWD/.fuzz/log
for v in N LIMIT WORKERS MEMORY GUIDED; do
	[[ ${!v} =~ ^[0-9]{1,12}$ ]] || { echo "make fuzz: $v=${!v} is not a whole number" >&2; exit 1; }
done
targets=$(git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -H '^func Fuzz' | sed -E 's|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(.*|\1/\2|' | sort | grep -E "$ONLY" || true)
[ -n "$targets" ] || { echo "make fuzz: no fuzz target matches ONLY=$ONLY" >&2; exit 1; }
mkdir -p .fuzz
touch "$log"
done_before() { awk -v t="$1" -v m="${2:-}" '$3 == t && (m == "" || $7 == m || m == "guided" && NF < 7) { n += $4 } END { printf "%d", n }' "$log"; }
if [ "${TABLE:-}" = 1 ]; then
	echo '| target | inputs | of them guided | found |'
	echo '|---|---|---|---|'
	for target in $targets; do
		awk -v t="$target" 'function c(n, s) { s = sprintf("%d", n); while (s ~ /[0-9][0-9][0-9][0-9]/) sub(/[0-9][0-9][0-9]($|,)/, ",&", s); return s }
			$3 == t { n += $4; if ($7 != "plain") g += $4; if ($6 == "FAIL") f++ } END { printf "| `%s` | %s | %s | %s |\n", t, c(n), c(g), f ? f : n ? "nothing" : "not run" }' "$log"
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
printf '%-48s %6s %11s %11s %12s %8s  %s\n' target mode inputs 'in all' interesting seconds result
failed=0
# run TARGET MODE UNTIL: inputs of one target in one mode until it had so many of them.
run() {
	local target=$1 mode=$2 until=$3 folder=${1%/*} name=${1##*/} before had test dir start result told n new total stopped='' flag=()
	before=$(done_before "$target" "$mode") had=$(done_before "$target")
	[ "$before" -lt "$until" ] || return 0
	test=$bin/${folder//\//_}.$mode
	[ "$mode" = plain ] || flag=(-fuzz="^$name\$")
	if [ ! -e "$test" ] && ! (cd "$folder" && go test -c "${flag[@]}" -tags noserver -vet=off -o "$test" . >"$out" 2>&1); then
		cat "$out" >&2
		printf '%-48s %6s %11s %11s %12s %8s  %s\n' "$target" "$mode" - "$had" - - 'does not build'
		failed=1
		return 0
	fi
	dir=$root/$folder
	if [ "$mode" = plain ]; then # Go reads its cache of interesting inputs only with guidance: they are seeds of a copy of the folder
		dir=$bin/run/$folder
		if ! [ -d "$dir" ]; then
			mkdir -p "$dir"
			cp -r "$root/$folder/." "$dir/"
		fi
		mkdir -p "$dir/testdata/fuzz/$name"
		[ ! -d "$cache/$module/$folder/$name" ] || cp "$cache/$module/$folder/$name"/* "$dir/testdata/fuzz/$name/" 2>/dev/null || true
	fi
	start=$SECONDS result=ok told=$SECONDS
	: >"$out"
	(
		cd "$dir"
		ulimit -v $((MEMORY << 10)) 2>/dev/null || true # not everywhere
		if [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi # some targets write files: a disk makes hundreds a second of them
		# Minimising an input that is merely interesting may take a minute of each.
		exec "$test" -test.run='^$' -test.fuzz="^$name\$" -test.fuzztime="$((until - before))x" -test.fuzzminimizetime=20x -test.parallel="$WORKERS" -test.fuzzcachedir="$cache/$module/$folder"
	) >"$out" 2>&1 &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		if [ -z "$stopped" ] && [ "$LIMIT" -gt 0 ] && [ $((SECONDS - start)) -ge "$LIMIT" ]; then
			stopped=1
			kill -INT "$pid" 2>/dev/null || true
		fi
		if [ $((SECONDS - told)) -ge 30 ]; then
			told=$SECONDS n=$(inputs)
			echo "  $target, $mode: $((had + ${n:-0})), $((${n:-0} / (SECONDS - start))) a second" >&2
		fi
	done
	wait "$pid" || result=FAIL
	pid=''
	n=$(inputs) new=$(sed -nE 's/.*new interesting: ([0-9]+).*/\1/p' "$out" | tail -1)
	# A target that was not tried must not pass for one that found nothing.
	if [ "$result" = ok ] && [ "${n:-0}" = 0 ] && [ -z "$stopped$interrupted" ]; then result=FAIL; fi
	printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(date -u +%FT%TZ)" "$commit" "$target" "${n:-0}" "$((SECONDS - start))" "$result" "$mode" >>"$log"
	total=$((had + ${n:-0}))
	[ "$result" = ok ] && [ "$((before + ${n:-0}))" -lt "$until" ] && result="ok so far; another make fuzz goes on"
	printf '%-48s %6s %11s %11s %12s %8s  %s\n' "$target" "$mode" "${n:--}" "$total" "${new:--}" "$((SECONDS - start))" "$result"
	if [ "$result" = FAIL ]; then
		failed=1
		grep -vE '^fuzz: elapsed' "$out" | tail -60 >&2
		if [ "$mode" = plain ]; then # what failed is new in the copy
			sed -nE 's|.*Failing input written to (testdata/fuzz/.*)|\1|p' "$out" | while read -r f; do
				mkdir -p "$root/$folder/${f%/*}"
				cp "$dir/$f" "$root/$folder/$f"
			done
		fi
		git -C "$root" status --short -- "$folder/testdata/fuzz" >&2
	fi
}
for target in $targets; do
	[ -z "$interrupted" ] || break
	if [ "$(done_before "$target")" -ge "$N" ]; then
		printf '%-48s %6s %11s %11s %12s %8s  %s\n' "$target" - - "$(done_before "$target")" - - 'had them before'
		continue
	fi
	# A whole Temporal server is behind those of cmd/: to compile it once more, instrumented, would cost many minutes.
	guided=$((GUIDED < N ? GUIDED : N))
	case $target in cmd/*) guided=0 ;; esac
	run "$target" guided "$guided"
	[ -n "$interrupted" ] || run "$target" plain $((N - $(done_before "$target" guided)))
done
[ -z "$interrupted" ] || exit 130
exit $failed
