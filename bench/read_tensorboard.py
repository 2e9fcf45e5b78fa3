#!/usr/bin/env python3
"""Reads the event files of `character export ID --tensorboard DIR` with TensorBoard's own reader and compares every value with metrics.jsonl.

    pip install tensorboard
    character export captain --out captain-files --tensorboard board
    bench/read_tensorboard.py board/captain captain-files/metrics.jsonl

Exit code 0: every value is there, as a 32-bit float, at its step; and none more.
"""
import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def as_float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def main(board, metrics):
    found = {}
    for folder in sorted(pathlib.Path(board).iterdir()):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            for e in events.Scalars(tag):
                found[folder.name, tag, e.step] = e.value
    wanted = {}
    for line in open(metrics):
        row = json.loads(line)
        stage, step = row.pop("stage"), row.pop("step", None)
        for name, value in row.items():
            tag = ("evaluation/" if step is None else "train/") + name
            wanted[stage, tag, step or 0] = as_float32(value)
    wrong = [(k, found.get(k), v) for k, v in wanted.items() if found.get(k) != v]
    more = sorted(set(found) - set(wanted))
    for key, got, want in wrong[:10]:
        print(key, "is", got, "want", want)
    for key in more[:10]:
        print(key, "is not in", metrics)
    print(f"{len(wanted)} values, {len(wrong)} wrong, {len(more)} too many")
    return 1 if wrong or more or not wanted else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
