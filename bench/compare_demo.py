#!/usr/bin/env python3
"""A whole run of ours against the same work in transformers + TRL: wall time, CPU time, memory, stage by stage.

    python bench/compare_demo.py --model SmolLM2-135M-Instruct.Q4_1.gguf                 # the demo: about half an hour
    python bench/compare_demo.py --model ... --dtype bf16 --precompute-reference        # the peer at its quickest
    python bench/compare_demo.py --model ... --finished DATA --id ID                    # of a run that is there: no CPU time
    python bench/compare_demo.py --model ... --set preferences.pairs=24 --set preferences.min_pairs=8 --set dpo.epochs=1 \\
        --set introspection.reflections=4 --set introspection.interactions=1 --set introspection.min_share=0   # a small one

Run with the Python that bench/setup.sh made, after `make build`. Ours is `character run` on a fresh data directory, its
servers and worker included from start to stop; the peer is bench/reference/method.py, its imports and loading included.
The peer gets the same prompts, texts, counts, lengths, ranks and rates (bench/peers/material), and the same number of
rows to try in every chunk, read from our run's history. What it samples differs by chance: the tokens stand in the table.
Ours also filters, stores, checkpoints and reports. Ratios over 1 mean that ours takes less. The peak is of the largest process.
"""

import base64
import datetime
import json
import os
import subprocess
import sys
import time

import sidebyside as s

STAGES = ("preferences", "dpo", "introspection", "sft", "evaluation")


def timed(command, log, **env):
    """Runs a command to its end: wall and CPU seconds of all its processes, and the peak of the largest."""
    start = time.perf_counter()
    with open(log, "w") as f:
        p = subprocess.Popen(command, stdout=f, stderr=subprocess.STDOUT, cwd=s.ROOT, env={**os.environ, **env})
        try:
            _, status, used = os.wait4(p.pid, 0)
        except KeyboardInterrupt:
            p.terminate()
            p.wait()
            raise
    if status:
        s.fail(f"{' '.join(command)}: failed; the end of {log}:\n{''.join(open(log, errors='replace').readlines()[-15:])}")
    return {"seconds": time.perf_counter() - start, "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_mb": used.ru_maxrss / (2 ** 20 if sys.platform == "darwin" else 2 ** 10)}


def history(o, workflow):
    p = subprocess.run([o.binary, "--data", o.data, "_history", workflow], stdout=subprocess.PIPE, text=True)
    if p.returncode:
        s.fail(f"cannot read the history of {workflow} in {o.data}; the message stands above")
    return json.loads(p.stdout)["events"]


def at(event):
    return datetime.datetime.fromisoformat(event["eventTime"][:26].rstrip("Z") + "+00:00").timestamp()


def results(events):
    """(activity, its input, its result) of every activity that completed, decoded."""
    scheduled, out = {}, []
    payload = lambda p: json.loads(base64.b64decode(p["payloads"][0]["data"]))
    for e in events:
        if a := e.get("activityTaskScheduledEventAttributes"):
            scheduled[e["eventId"]] = a
        elif a := e.get("activityTaskCompletedEventAttributes"):
            b = scheduled[a["scheduledEventId"]]
            if "result" in a:
                out.append((b["activityType"]["name"], payload(b["input"]), payload(a["result"])))
    return out


def stages(o, workflow):
    """Seconds and tokens of our stages, and the rows of every chunk."""
    main, begun, out = history(o, workflow), {}, {}
    for e in main:
        if a := e.get("childWorkflowExecutionStartedEventAttributes"):
            begun[a["workflowExecution"]["workflowId"]] = at(e)
        elif a := e.get("childWorkflowExecutionCompletedEventAttributes"):
            name = a["workflowExecution"]["workflowId"]
            out[name.rsplit("/", 1)[1]] = {"seconds": at(e) - begun[name], "tokens": None}
    missing = set(STAGES) - set(out)
    if missing:
        s.fail(f"run {workflow} has no finished {', '.join(sorted(missing))}")
    counts = {"teacher": [], "student": [], "reflection": [], "interaction": [], "kept": {}}
    for name in STAGES[:4]:
        done = results(history(o, f"{workflow}/{name}"))
        out[name]["tokens"] = sum(r.get("tokens", 0) for kind, _, r in done if kind in ("Generate", "Converse", "TrainSegment"))
        for kind, given, r in done:
            if kind in ("Generate", "Converse"):
                counts[given["role"]].append(r["rows"])
                counts["kept"][given["role"]] = counts["kept"].get(given["role"], 0) + r["kept"]
    return out, counts, at(main[-1]) - at(main[0])


def main():
    a = s.parser(__doc__, times=False)  # one run takes minutes: repeating it is the caller's choice
    a.add_argument("--constitution", default="captain")
    a.add_argument("--preset", default="demo")
    a.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a field of the spec, for both sides (repeatable)")
    a.add_argument("--binary", default=os.path.join(s.ROOT, "bin", "character"))
    a.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="of the peer")
    a.add_argument("--precompute-reference", action="store_true", help="the peer scores the reference once, as ours does; TRL's default is every step")
    a.add_argument("--gen-batch", type=int, default=64, help="rows that the peer generates at once")
    a.add_argument("--finished", metavar="DATA", help="data directory of a finished run of the same preset")
    a.add_argument("--id", default="bench", help="name of the run")
    o = a.parse_args()
    s.check(o)
    s.need("torch", "transformers", "trl", "peft", "datasets", "gguf")
    if not os.access(o.binary, os.X_OK):
        s.fail(f"{o.binary} is not there; `make build` makes it")
    m = s.machine(o, "torch", "transformers", "trl", "peft")
    folder = s.scratch()
    files = {x: os.path.join(folder, x + ".json") for x in ("material", "counts", "peer")}
    sets = lambda dash: [x for kv in o.set for x in (dash + "set", kv)]
    with open(files["material"], "w") as f:
        if subprocess.run([s.build("bench/peers/material"), "-constitution", o.constitution, "-preset", o.preset, *sets("-")],
                          stdout=f, cwd=s.ROOT).returncode:
            s.fail("bench/peers/material failed; its message stands above")

    ours = None
    o.data = o.finished or os.path.join(folder, "data")
    if not o.finished:
        print("ours runs ...", flush=True)
        ours = timed([o.binary, "--data", o.data, "run", o.constitution, "--preset", o.preset, "--id", o.id, "--model", o.model, *sets("--")],
                     os.path.join(folder, "ours.log"), GOMAXPROCS=str(o.threads))
    mine, counts, wall = stages(o, o.id)
    ours = ours or {"seconds": wall, "cpu_seconds": None, "peak_mb": None}
    with open(files["counts"], "w") as f:
        json.dump(counts, f)
    print(f"ours: {ours['seconds']:.0f} s; rows tried: {counts}\nthe peer runs ...", flush=True)
    peer = timed([sys.executable, "-W", "ignore", os.path.join(s.HERE, "reference", "method.py"), "--model", o.model, "--material", files["material"],
                  "--counts", files["counts"], "--dtype", o.dtype, "--gen-batch", str(o.gen_batch), "--threads", str(o.threads), "--json", files["peer"],
                  *(["--precompute-reference"] if o.precompute_reference else [])],
                 os.path.join(folder, "peer.log"), OMP_NUM_THREADS=str(o.threads), TQDM_DISABLE="1")
    theirs = json.load(open(files["peer"], encoding="utf-8"))

    rows = []
    for name in STAGES:
        us, them = mine[name], theirs["stages"][name]
        rows.append([name, us["seconds"], them["seconds"], s.ratio(them["seconds"], us["seconds"]), us["tokens"], them["tokens"] if us["tokens"] else None])
    total = {k: {"ours": ours[k], "peer": peer[k], "ratio": s.ratio(peer[k], ours[k])} for k in ("seconds", "cpu_seconds", "peak_mb")}
    rows += [[name, *(total[k][x] for x in ("ours", "peer", "ratio")), None, None]
             for k, name in (("seconds", "all, wall s"), ("cpu_seconds", "all, CPU s"), ("peak_mb", "peak MB"))]
    s.table(f"{o.constitution}, preset {o.preset}; peer in {o.dtype}{', reference computed once' if o.precompute_reference else ''}",
            [("stage", ""), ("ours s", ".1f"), ("peer s", ".1f"), ("ratio", ".2f"), ("ours tokens", ""), ("peer tokens", "")], rows)
    print(f"peer: held-out gain after DPO {theirs['gain_dpo']:+.3f}, final {theirs['gain_character']:+.3f}")
    s.finish(o, {**m, "peer_dtype": o.dtype}, {"ours": {**ours, "stages": mine}, "peer": {**peer, **theirs}, "counts": counts, "total": total})


if __name__ == "__main__":
    sys.exit(main())
