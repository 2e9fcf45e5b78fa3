#!/usr/bin/env python3
"""Asks a server everything that `character serve` supports with OpenAI's own client. One line a check; exit status 1 if any fails.

    python openai_python.py BASE_URL
"""

import asyncio
import sys
import threading
import traceback

import openai

client = openai.OpenAI(base_url=sys.argv[1], max_retries=0, timeout=300)
ask = [{"role": "user", "content": "Where do you sail?"}]
failed = 0


def check(test):
    global failed
    try:
        test()
        print(f"ok    {test.__name__}")
    except Exception:
        failed += 1
        print(f"FAIL  {test.__name__}")
        traceback.print_exc()


def chat(**more):
    return client.chat.completions.create(**{"model": "character", "messages": ask, "seed": 1, "max_tokens": 24, **more})


def models():
    names = [m.id for m in client.models.list()]
    assert names == ["base", "dpo", "character"], names
    assert client.models.retrieve("dpo").id == "dpo"


def chat_completion():
    one, two = chat(), chat()
    assert one.choices[0].message.role == "assistant" and one.choices[0].message.content == two.choices[0].message.content
    assert one.usage.total_tokens == one.usage.prompt_tokens + one.usage.completion_tokens and one.usage.completion_tokens <= 24
    assert one.choices[0].finish_reason in ("stop", "length") and one.system_fingerprint.startswith("fp_")


def stream():
    whole, text, usage = chat(), "", None
    for piece in chat(stream=True, stream_options={"include_usage": True}):
        for c in piece.choices:
            text += c.delta.content or ""
        usage = piece.usage or usage
    assert text == whole.choices[0].message.content, (text, whole)
    assert usage == whole.usage, (usage, whole.usage)


def stream_helper():
    with client.chat.completions.stream(model="character", messages=ask, seed=1, max_tokens=24) as s:
        for _ in s:
            pass
        assert s.get_final_completion().choices[0].message.content == chat().choices[0].message.content


def log_probs():
    c = chat(logprobs=True, top_logprobs=3, n=2).choices
    for choice in c:
        content = choice.logprobs.content
        assert b"".join(bytes(t.bytes) for t in content).decode(errors="replace").startswith(choice.message.content[:5])
        assert all(len(t.top_logprobs) == 3 and t.logprob <= t.top_logprobs[0].logprob <= 0 for t in content)
    assert len(c) == 2


def stop():
    text = chat(temperature=0, max_tokens=40).choices[0].message.content
    mark = text[len(text) // 2 :][:3]
    cut = chat(temperature=0, max_tokens=40, stop=[mark]).choices[0]
    assert cut.message.content == text[: text.index(mark)] and cut.finish_reason == "stop", (cut, text)


def conversation():
    first = chat().choices[0].message
    more = ask + [first.model_dump(), {"role": "user", "content": [{"type": "text", "text": "And then?"}]}]
    assert chat(messages=more).choices[0].message.role == "assistant"


def completion():
    r = client.completions.create(model="base", prompt=["Once upon a time", "The sea"], max_tokens=8, seed=2, logprobs=2, n=2)
    assert len(r.choices) == 4 and r.object == "text_completion"
    assert len(r.choices[0].logprobs.tokens) == len(r.choices[0].logprobs.token_logprobs)
    text = "".join(p.choices[0].text for p in client.completions.create(model="base", prompt="Once upon a time", max_tokens=8, seed=2, stream=True) if p.choices)
    assert text == r.choices[0].text, (text, r)


def errors():
    for error, more in [
        (openai.NotFoundError, {"model": "gpt-4o"}),
        (openai.BadRequestError, {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}),
        (openai.BadRequestError, {"temperature": 9}),
        (openai.BadRequestError, {"messages": []}),
        (openai.BadRequestError, {"messages": [{"role": "user", "content": "x " * 100000}]}),
    ]:
        try:
            chat(**more)
        except error as e:
            assert e.body["message"] and e.body["type"] == "invalid_request_error", e.body
        else:
            raise AssertionError(f"{more} was taken")


def many_at_once():
    want = [chat(seed=i).choices[0].message.content for i in range(8)]
    got = [None] * 8

    def one(i):
        got[i] = chat(seed=i).choices[0].message.content

    threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == want


def async_client():
    async def both():
        async with openai.AsyncOpenAI(base_url=sys.argv[1]) as c:
            return [r.choices[0].message.content for r in await asyncio.gather(
                *(c.chat.completions.create(model="base", messages=ask, seed=s, max_tokens=12) for s in (1, 1)))]

    one, two = asyncio.run(both())
    assert one == two


print("python", sys.version.split()[0], "openai", openai.__version__)
for test in [models, chat_completion, stream, stream_helper, log_probs, stop, conversation, completion, errors, many_at_once, async_client]:
    check(test)
sys.exit(failed > 0)
