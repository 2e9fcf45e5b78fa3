#!/usr/bin/env python3
"""A copy of the Go vulnerability database for `make vulncheck` where its server cannot be reached.

    git clone --depth 1 URL-OF-golang/vulndb vulndb      # on a machine that can, or from your own mirror
    python3 bench/vulndb.py vulndb copy
    GOVULNDB=file://$PWD/copy make vulncheck

Writes what https://go.dev/doc/security/vuln/database describes: index/db.json, index/modules.json, index/vulns.json, ID/*.json.
"""

import datetime
import json
import pathlib
import subprocess
import sys


def main(args):
    if len(args) != 2 or args[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if args and args[0] in ("-h", "--help") else 2
    source, copy = pathlib.Path(args[0]) / "data" / "osv", pathlib.Path(args[1])
    files = sorted(source.glob("GO-*.json"))
    if not files:
        print(f"vulndb: {source} has no GO-*.json: name a checkout of golang/vulndb", file=sys.stderr)
        return 1
    for folder in ("index", "ID"):
        (copy / folder).mkdir(parents=True, exist_ok=True)
    modules, index = {}, []
    for f in files:
        try:
            d = json.loads(f.read_text())
            entry = {"id": d["id"], "modified": d["modified"]}
        except (ValueError, KeyError) as e:
            print(f"vulndb: {f}: {e!r}: is the checkout whole?", file=sys.stderr)
            return 1
        (copy / "ID" / f.name).write_text(json.dumps(d))
        index.append({**entry, **({"aliases": d["aliases"]} if d.get("aliases") else {})})
        for a in [] if d.get("withdrawn") else d.get("affected", []):
            fixed = [e["fixed"] for r in a.get("ranges", []) for e in r.get("events", []) if "fixed" in e]
            modules.setdefault(a["package"]["name"], {})[d["id"]] = {**entry, **({"fixed": fixed[-1]} if fixed else {})}
    write = lambda name, v: (copy / "index" / name).write_text(json.dumps(v))
    write("modules.json", [{"path": m, "vulns": list(v.values())} for m, v in sorted(modules.items())])
    write("vulns.json", index)
    # The reports of a checkout carry no dates of change: the copy is as old as its commit.
    git = subprocess.run(["git", "-C", args[0], "log", "-1", "--format=%cI"], capture_output=True, text=True)
    when = git.stdout.strip() if git.returncode == 0 else datetime.datetime.fromtimestamp(max(f.stat().st_mtime for f in files), datetime.timezone.utc).isoformat()
    write("db.json", {"modified": when})
    print(f"{len(index)} reports about {len(modules)} modules, as of {when}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
