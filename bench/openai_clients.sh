#!/usr/bin/env bash
# Runs OpenAI's own Python and JavaScript clients, at pinned versions, against `character serve`.
#
#   bench/openai_clients.sh DIR BASE_URL     DIR is where the clients are installed, outside of the repository
#                                            (running it again is quick); BASE_URL as the server prints it, with /v1
#   bench/openai_clients.sh DIR              starts a server itself: BINARY (bin/character) on run ID of DATA, which
#                                            are environment variables
#
# OPENAI_API_KEY is sent as the key. Without node the JavaScript client is left out, and that is said.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 1 ]; then
	sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
	exit 2
fi
dir=$1 url=${2:-}
python=${PYTHON:-python3}
export OPENAI_API_KEY=${OPENAI_API_KEY:-any}
mkdir -p "$dir"
[ -x "$dir/venv/bin/python" ] || "$python" -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/clients/requirements.txt"
if [ -z "$url" ]; then
	exec 3< <(exec "${BINARY:-$here/../bin/character}" --data "${DATA:-.character}" serve --id "${ID:-captain}" --json)
	server=$!
	trap 'kill "$server" 2>/dev/null || true' EXIT
	read -r line <&3 || { echo "openai_clients: the server did not start" >&2; exit 1; }
	url=$("$dir/venv/bin/python" -c 'import json, sys; print(json.loads(sys.argv[1])["base_url"])' "$line")
fi
"$dir/venv/bin/python" "$here/clients/openai_python.py" "$url"
if command -v node >/dev/null && command -v npm >/dev/null; then
	cp "$here/clients/package.json" "$here/clients/openai_javascript.mjs" "$dir/"
	(cd "$dir" && npm install --silent --no-audit --no-fund && node openai_javascript.mjs "$url")
else
	echo "openai_clients: no node and npm here: the JavaScript client was not run" >&2
fi
