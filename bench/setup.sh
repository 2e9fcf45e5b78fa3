#!/usr/bin/env bash
# Makes a Python environment with the peers that bench/ and the recordings compare with, at pinned versions.
#
#   bench/setup.sh DIR        then run the scripts with DIR/bin/python
#
# Plain pip on the CPU; about 6 GB on the disk (torch brings its CUDA libraries). Running it again is quick.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -ne 1 ]; then
	sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
	exit 2
fi
dir=$1 pins=$here/reference/requirements.txt
python=${PYTHON:-python3}
if ! "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
	echo "setup: needs Python 3.10 or newer with the venv module; name another with PYTHON=..." >&2
	exit 1
fi
[ -x "$dir/bin/python" ] || "$python" -m venv "$dir"
"$dir/bin/python" -m pip install --quiet --disable-pip-version-check -r "$pins"
"$dir/bin/python" - "$pins" <<'PY'
import sys
from importlib.metadata import version

for line in open(sys.argv[1]):
    name, pin = line.strip().split("==")
    if version(name).split("+")[0] != pin:
        sys.exit(f"setup: {name} is {version(name)}, pinned is {pin}; remove the folder and run again")
    print(f"{name} {version(name)}")
PY
