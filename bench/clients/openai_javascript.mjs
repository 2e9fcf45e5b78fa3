// Asks a server what `character serve` supports with OpenAI's own client. One line a check; exit status 1 if any fails.
//
//     node openai_javascript.mjs BASE_URL
import assert from "node:assert/strict";
import OpenAI, { BadRequestError, NotFoundError } from "openai";

const client = new OpenAI({ baseURL: process.argv[2], maxRetries: 0, timeout: 300_000 });
const messages = [{ role: "user", content: "Where do you sail?" }];
const chat = (more = {}) => client.chat.completions.create({ model: "character", messages, seed: 1, max_tokens: 24, ...more });

const tests = {
  async models() {
    const names = [];
    for await (const m of client.models.list()) names.push(m.id);
    assert.deepEqual(names, ["base", "dpo", "character"]);
  },
  async chatCompletion() {
    const [one, two] = await Promise.all([chat(), chat()]);
    assert.equal(one.choices[0].message.content, two.choices[0].message.content);
    assert.equal(one.usage.total_tokens, one.usage.prompt_tokens + one.usage.completion_tokens);
  },
  async stream() {
    const whole = await chat();
    let text = "", usage = null;
    for await (const piece of await chat({ stream: true, stream_options: { include_usage: true } })) {
      text += piece.choices[0]?.delta?.content ?? "";
      usage = piece.usage ?? usage;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.deepEqual(usage, whole.usage);
  },
  async streamHelper() {
    const s = client.chat.completions.stream({ model: "character", messages, seed: 1, max_tokens: 24 });
    assert.equal(await s.finalContent(), (await chat()).choices[0].message.content);
  },
  async logProbs() {
    const r = await chat({ logprobs: true, top_logprobs: 2 });
    for (const t of r.choices[0].logprobs.content) assert.ok(t.top_logprobs.length === 2 && t.logprob <= t.top_logprobs[0].logprob);
  },
  async completion() {
    const r = await client.completions.create({ model: "base", prompt: "Once upon a time", max_tokens: 8, seed: 2 });
    assert.equal(r.object, "text_completion");
  },
  async goneInTheMiddle() {
    const s = await chat({ stream: true, max_tokens: 500 });
    for await (const _ of s) break; // aborts the request
    assert.equal((await chat({ max_tokens: 2 })).choices.length, 1);
  },
  async errors() {
    await assert.rejects(chat({ model: "gpt-4o" }), (e) => e instanceof NotFoundError && e.code === "model_not_found");
    await assert.rejects(chat({ logit_bias: { 5: 10 } }), (e) => e instanceof BadRequestError && e.param === "logit_bias");
  },
};

let failed = 0;
console.log("node", process.version);
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    console.log("ok   ", name);
  } catch (e) {
    failed++;
    console.log("FAIL ", name, e);
  }
}
process.exit(failed > 0 ? 1 : 0);
