"""What the comparisons in this folder share: build ours, run both sides in turn, medians, one table, one JSON line.

A side is a command that prints JSON objects, one a line; the last one is its result. Rounds go through all pieces of
work and run the sides of each one after the other, so that a busy machine slows both. A ratio over 1 always means that
ours is better.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


def fail(message):
    """Ends the program with one line that says what to do."""
    raise SystemExit(f"{os.path.basename(sys.argv[0])}: {message}")


def parser(doc, model=True, times=True, threads=2):
    """The arguments that every comparison has."""
    a = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if model:
        a.add_argument("--model", required=True, help="GGUF file of SmolLM2-135M-Instruct (`character model pull` gets it)")
    if times:
        a.add_argument("--times", type=int, default=3, help="rounds; medians are compared")
    a.add_argument("--threads", type=int, default=threads)
    a.add_argument("--json", metavar="FILE", help="write the JSON line there too")
    return a


def check(o):
    """Refuses what can be known to be wrong before anything runs."""
    if getattr(o, "model", None) is not None:
        o.model = os.path.abspath(o.model)
        if not os.path.isfile(o.model):
            fail(f"{o.model}: no such file; `bin/character model pull smollm2-135m-instruct` gets the model, "
                 "`bin/character model inspect smollm2-135m-instruct` tells its path")
    times = getattr(o, "times", 3)
    if times < 1 or o.threads < 1:
        fail("--times and --threads must be at least 1")
    if times < 3:
        print("note: fewer than 3 rounds give no usable median", file=sys.stderr)


def need(*modules, how="bench/setup.sh DIR"):
    """The peers run in this Python: its modules must be there."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        fail(f"Python {sys.executable} lacks {', '.join(missing)}; install the peers with `{how}` and run this with DIR/bin/python")


@functools.cache
def build(package):
    """Compiles a Go command of this repository and returns its path."""
    if not shutil.which("go"):
        fail("Go is not installed; get 1.26 or newer")
    out = os.path.join(scratch(), os.path.basename(package))
    if subprocess.run(["go", "build", "-o", out, "./" + package], cwd=ROOT).returncode:
        fail(f"go build ./{package} failed; its messages stand above")
    return out


@functools.cache
def folder():
    return tempfile.TemporaryDirectory(prefix="bench-")  # removed when the program ends


def scratch():
    return folder().name


def peer(script):
    """A peer's command, in this Python."""
    return [sys.executable, os.path.join(HERE, "peers", script)]


def run(command, threads):
    """Runs a side and returns its result."""
    env = {**os.environ, **{k: str(threads) for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}, "TQDM_DISABLE": "1"}
    p = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT)
    if p.returncode:
        fail(f"{shlex.join(command)}: exit status {p.returncode}; its messages stand above")
    for line in reversed(p.stdout.splitlines()):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    fail(f"{shlex.join(command)}: printed no JSON object")


def rounds(o, jobs, say):
    """jobs: {name: {side: command}}. Returns {name: {side: [results]}}; say(result) is the progress of a side."""
    seen = {name: {side: [] for side in sides} for name, sides in jobs.items()}
    for i in range(o.times):
        for name, sides in jobs.items():
            for side, command in sides.items():
                r = run(command, o.threads)
                seen[name][side].append(r)
                print(f"round {i + 1} {name}: {side} {say(r)}", flush=True)
    return seen


def rate(r):
    return f"{r['tokens'] / r['seconds']:.1f} tokens/s, {r['tokens'] / r['cpu_seconds']:.1f} a CPU second"


def median(results, figure):
    """The median of figure(result), or None where the figure is not there."""
    values = [v for v in map(figure, results) if v]
    return statistics.median(values) if values else None


def ratio(a, b):
    return a / b if a and b else None


def cpu():
    """Model name and the widest vector unit, from /proc/cpuinfo where there is one."""
    try:
        info = dict(l.split(":", 1) for l in open("/proc/cpuinfo").read().split("\n\n")[0].splitlines() if ":" in l)
        info = {k.strip(): v.strip() for k, v in info.items()}
        flags = info.get("flags", "").split()
        wide = "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "generic"
        return f"{info.get('model name')} family {info.get('cpu family')} model {info.get('model')}, {wide}"
    except OSError:
        return platform.processor() or platform.machine()


def machine(o, *packages):
    """What the figures depend on: CPU, threads, load, versions."""
    versions = {"python": platform.python_version()}
    for p in packages:
        try:
            versions[p] = importlib.metadata.version(p)
        except importlib.metadata.PackageNotFoundError:
            versions[p] = None
    if shutil.which("go"):
        versions["go"] = subprocess.run(["go", "env", "GOVERSION"], stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout.strip()
    load = os.getloadavg()[0]
    m = {"cpu": cpu(), "threads": o.threads, "cores": os.cpu_count(), "load_before": round(load, 2), "versions": versions,
         "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY")}
    print(f"CPU: {m['cpu']}; {m['cores']} cores, {o.threads} threads; load {load:.2f}\n"
          + ", ".join(f"{k} {v}" for k, v in versions.items() if v), flush=True)
    if load > 0.5:
        print("note: other work runs on this machine; trust ratios of CPU seconds more than those of wall time", file=sys.stderr)
    return m


def table(title, columns, rows):
    """columns: [(heading, format)], the first is text; rows: lists of values, None prints as a dash."""
    cells = [[h for h, _ in columns]]
    for r in rows:
        cells.append(["-" if v is None else str(v) if not f else format(v, f) for v, (_, f) in zip(r, columns)])
    wide = [max(map(len, c)) for c in zip(*cells)]
    print(f"\n{title}")
    for line in cells:
        print("  ".join([line[0].ljust(wide[0])] + [v.rjust(w) for v, w in zip(line[1:], wide[1:])]))


def finish(o, m, results):
    """Prints the JSON line, and writes it to --json."""
    line = json.dumps({"machine": m, "results": results})
    print(line)
    if o.json:
        with open(o.json, "w") as f:
            f.write(line + "\n")
