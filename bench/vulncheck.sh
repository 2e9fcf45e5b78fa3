#!/usr/bin/env bash
# Looks for known vulnerabilities in what this program calls. Needs the vulnerability database: by default the Go project's, from the network.
#
#   GOVULNDB   URL of a copy of the database, e.g. file:///srv/vulndb where there is no network
#   SCAN       symbol (what is called; minutes, the default) or package (what is linked; seconds)
#
# Exit code: 0 nothing was found, 3 something was found, 2 nothing was checked because the database cannot be reached.
set -uo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
arguments=(-scan "${SCAN:-symbol}" ./...)
[ -z "${GOVULNDB:-}" ] || arguments=(-db "$GOVULNDB" "${arguments[@]}")
log=$(mktemp)
trap 'rm -f "$log"' EXIT
go tool -modfile=tools/go.mod govulncheck "${arguments[@]}" 2>&1 | tee "$log"
code=${PIPESTATUS[0]}
if [ "$code" -ne 0 ] && grep -qE '^(govulncheck: )?(fetching vulnerabilities|creating client)' "$log"; then
	echo "make vulncheck: NOTHING WAS CHECKED: the vulnerability database cannot be reached from here; run this where it can, or name a copy with GOVULNDB=file:///..." >&2
	exit 2
fi
exit "$code"
