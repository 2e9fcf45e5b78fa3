#!/usr/bin/env python3
"""Ours against the peers, in turn, in the same run: prints the ratios of medians, by wall time and by CPU time.

    python bench/compare.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--times 3] [--work generate,dpo,sft] [--json out.json]

Run from the repository root with the Python of bench/reference/requirements.txt. Ours is the command --ours, which
must print a JSON line with {"tokens_per_second", "tokens_per_cpu_second"} under dpo_step, sft_step and generate16
(bench/peers/ours does). Every round runs ours, then the peer, so that a busy machine slows both; tokens a CPU second
leave waiting for a core out, and are the steadier figure there.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = {"generate": "generate16", "dpo": "dpo_step", "sft": "sft_step"}


def figures(command):
    """Runs a command and returns {name: (tokens a second, tokens a CPU second)} from the JSON objects it printed."""
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        raise SystemExit(f"{shlex.join(command)}: exit status {run.returncode}; its messages stand above")
    found = {}
    for line in run.stdout.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            for name in NAMES.values():
                if name in value:
                    found[name] = (value[name]["tokens_per_second"], value[name]["tokens_per_cpu_second"])
    if not found:
        raise SystemExit(f"{shlex.join(command)}: printed no JSON line with {', '.join(NAMES.values())}")
    return found


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", required=True)
    a.add_argument("--ours", default="go run ./bench/peers/ours -model {model} -threads {threads} -steps {rows}",
                   help="command of our side; {model}, {threads} and {rows} are filled in")
    a.add_argument("--times", type=int, default=3)
    a.add_argument("--work", default="generate,dpo,sft")
    a.add_argument("--rows", type=int, default=3, help="timed training steps a round")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--json")
    o = a.parse_args()
    work = o.work.split(",")
    if o.times < 3:
        print("note: fewer than 3 rounds give no usable median", file=sys.stderr)
    ours = [p.format(model=o.model, threads=o.threads, rows=o.rows) for p in shlex.split(o.ours)]
    peers = []
    common = ["--model", o.model, "--threads", str(o.threads)]
    if "generate" in work:
        peers.append([sys.executable, os.path.join(HERE, "peers", "generate_transformers.py"), *common])
    train = [x for x in work if x in ("dpo", "sft")]
    if train:
        peers.append([sys.executable, os.path.join(HERE, "peers", "train_trl.py"), *common, "--rows", str(o.rows),
                      "--work", ",".join(train)])

    seen = {NAMES[x]: ([], []) for x in work}
    for i in range(o.times):
        mine = figures(ours)
        theirs = {}
        for p in peers:
            theirs.update(figures(p))
        for name, (us, them) in seen.items():
            if name in mine and name in theirs:
                us.append(mine[name])
                them.append(theirs[name])
                print(f"round {i + 1} {name}: ours {mine[name][0]:.1f}, peer {theirs[name][0]:.1f} tokens/s; "
                      f"a CPU second {mine[name][1]:.1f} and {theirs[name][1]:.1f}", flush=True)
            else:
                print(f"round {i + 1} {name}: missing from {'ours' if name not in mine else 'the peer'}", flush=True)
    print(f"\nmedians of {o.times}, tokens, {o.threads} threads")
    print(f"{'work':<12} {'ours/s':>9} {'peer/s':>9} {'ratio':>7} {'ours/CPU s':>11} {'peer/CPU s':>11} {'ratio':>7}")
    out = {}
    for name, (us, them) in seen.items():
        if us:
            u, t, uc, tc = (statistics.median(x[i] for x in side) for i in (0, 1) for side in (us, them))
            out[name] = {"ours": u, "peer": t, "ratio": u / t, "ours_cpu": uc, "peer_cpu": tc, "ratio_cpu": uc / tc,
                         "rounds": list(zip(us, them))}
            print(f"{name:<12} {u:>9.1f} {t:>9.1f} {u / t:>6.2f}x {uc:>11.1f} {tc:>11.1f} {uc / tc:>6.2f}x")
    line = json.dumps(out)
    print(line)
    if o.json:
        with open(o.json, "w") as f:
            f.write(line + "\n")
    return 0 if len(out) == len(seen) else 1


if __name__ == "__main__":
    sys.exit(main())
