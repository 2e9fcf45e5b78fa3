#!/usr/bin/env bash
# Makes a Python environment with the peers that bench/ and the recordings compare with, at pinned versions.
#
#   bench/setup.sh DIR            then run the scripts with DIR/bin/python
#   bench/setup.sh DIR --llama    llama-cpp-python too, built for this processor: needs cmake and a C++ compiler,
#                                 about 7 minutes on two cores
#
# Plain pip on the CPU; about 6 GB on the disk (torch brings its CUDA libraries). Running it again is quick.
# MAKEFLAGS=-j1 keeps the build to one core.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 1 ] || [ "${2:---llama}" != --llama ]; then
	sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
	exit 2
fi
dir=$1 llama=${2:-} pins=$here/reference/requirements.txt
python=${PYTHON:-python3}
if ! "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
	echo "setup: needs Python 3.10 or newer with the venv module; name another with PYTHON=..." >&2
	exit 1
fi
[ -x "$dir/bin/python" ] || "$python" -m venv "$dir"
"$dir/bin/python" -m pip install --quiet --disable-pip-version-check -r "$pins"
if [ -n "$llama" ]; then
	for tool in cmake c++; do
		command -v "$tool" >/dev/null || { echo "setup: --llama builds llama.cpp and needs $tool; install it (Debian: apt-get install cmake g++)" >&2; exit 1; }
	done
	# From source, so that it uses what this processor has: a ready-made one would not be a fair peer.
	"$dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-binary llama-cpp-python -r "$here/peers/llama.txt"
	pins="$pins $here/peers/llama.txt"
fi
# shellcheck disable=SC2086
"$dir/bin/python" - $pins <<'PY'
import sys
from importlib.metadata import version

for line in (l for f in sys.argv[1:] for l in open(f)):
    name, pin = line.strip().split("==")
    if version(name).split("+")[0] != pin:
        sys.exit(f"setup: {name} is {version(name)}, pinned is {pin}; remove the folder and run again")
    print(f"{name} {version(name)}")
PY
