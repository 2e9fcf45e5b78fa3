"""Which rows method.py tries and keeps, and how a conversation looks to each of its speakers."""


def user(text):
    return {"role": "user", "content": text}


def chunks(count, target, size, fixed):
    """Yields ranges of rows to try and is sent how many of them passed: our chunk rule, or the given sizes."""
    kept = at = 0
    for n in fixed or []:
        yield at, min(at + n, count)
        at += n
    while not fixed and at < count and kept < target:
        n = max(8, 2 * target) if at == 0 else max(8, int((target - kept) / max(kept / at, .05) * 1.1) + 1)
        to = min(count, at + min(n, size))
        kept += yield at, to
        at = to


def each(ranges, run):
    """Runs every range; run(lo, hi) returns how many passed."""
    try:
        r = next(ranges)
        while True:
            r = ranges.send(run(*r))
    except StopIteration:
        pass


def fill(rows, n):
    """n rows: those that passed, then others, so that what follows has the same work as ours. rows: [(row, passed)]."""
    picked = [r for r, ok in rows if ok] + [r for r, ok in rows if not ok]
    if len(picked) < n:
        raise SystemExit(f"method: {len(picked)} rows for a target of {n}")
    return picked[:n]


def seen(system, start, said, first):
    """The conversation as one speaker sees it: own lines are the assistant's. The first hears the opener."""
    out = [{"role": "system", "content": system}]
    out += [user(start["opener"])] if first else [user(start["greeting"]), {"role": "assistant", "content": start["opener"]}]
    return out + [{"role": "assistant" if (i % 2 == 0) == first else "user", "content": s} for i, s in enumerate(said)]
