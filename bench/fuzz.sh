#!/usr/bin/env bash
# Every fuzz target of the project, each for N inputs. Ends non-zero when one of them found something.
#
#   N        inputs a target, 1000000 unless told
#   ONLY     a regular expression on folder/FuzzName: which targets to run
#   WORKERS  processes at a time, one a core unless told
#   MEMORY   MiB of address space that one process may have, 6144 unless told
#
# The targets of cmd/ run without coverage guidance. A finding stays in testdata/fuzz beside the target: mend the code and commit the file, it is a test from then on.
# Interesting inputs are kept in Go's own fuzz cache, so a later run goes on where this one stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
N=${N:-1000000} ONLY=${ONLY:-.} WORKERS=${WORKERS:-$(getconf _NPROCESSORS_ONLN)} MEMORY=${MEMORY:-6144}
root=$PWD module=$(go list -m) cache=$(go env GOCACHE)/fuzz
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
# The soft limit makes Go collect before the hard one ends the process.
export GOMEMLIMIT=$((MEMORY / 3))MiB
targets=$(git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -H '^func Fuzz' | sed -E 's|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(.*|\1/\2|' | sort | grep -E "$ONLY" || true)
[ -n "$targets" ] || { echo "make fuzz: no fuzz target matches ONLY=$ONLY" >&2; exit 1; }
printf '%-48s %10s %12s %8s  %s\n' target inputs interesting seconds result
failed=0
for target in $targets; do
	folder=${target%/*} name=${target##*/}
	test=$bin/${folder//\//_}.test log=$bin/log
	guided=(-fuzz="^$name\$")
	# A whole Temporal server is behind these: to compile it once more, instrumented, would cost many minutes.
	case $folder in cmd/*) guided=() ;; esac
	if [ ! -e "$test" ] && ! (cd "$folder" && go test -c "${guided[@]}" -tags noserver -vet=off -o "$test" . >"$log" 2>&1); then
		cat "$log" >&2
		printf '%-48s %10s %12s %8s  %s\n' "$target" - - - 'does not build'
		failed=1
		continue
	fi
	start=$SECONDS result=ok
	(
		cd "$folder"
		ulimit -v $((MEMORY << 10)) 2>/dev/null || true # not everywhere
		exec "$test" -test.run='^$' -test.fuzz="^$name\$" -test.fuzztime="${N}x" -test.parallel="$WORKERS" -test.fuzzcachedir="$cache/$module/$folder"
	) >"$log" 2>&1 || result=FAIL
	line=$(grep -E '^fuzz: elapsed.*execs' "$log" | tail -1 || true)
	inputs=$(sed -nE 's/.*execs: ([0-9]+).*/\1/p' <<<"$line") new=$(sed -nE 's/.*new interesting: ([0-9]+).*/\1/p' <<<"$line")
	printf '%-48s %10s %12s %8s  %s\n' "$target" "${inputs:--}" "${new:--}" "$((SECONDS - start))" "$result"
	if [ "$result" = FAIL ]; then
		failed=1
		grep -vE '^fuzz: elapsed' "$log" | tail -60 >&2
		git -C "$root" status --short -- "$folder/testdata/fuzz" >&2
	fi
done
exit $failed
