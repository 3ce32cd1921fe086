// What a run costs: time, tokens, money.

import { byId, count, describe, money, seconds } from "./dom.js";

export class Meters {
  run = "";
  tokens = 0;
  first = null; // ms until the first token
  usage = null;
  cached = false;

  token(ms) {
    this.tokens += 1;
    this.first ??= ms;
  }

  add(usage) {
    this.usage ??= { prompt_tokens: 0, completion_tokens: 0, cost: 0 };
    this.usage.prompt_tokens += usage.prompt_tokens;
    this.usage.completion_tokens += usage.completion_tokens;
    const unknown = this.usage.cost === null || (usage.cost === null && !usage.cached);
    this.usage.cost = unknown ? null : this.usage.cost + (usage.cost ?? 0);
  }

  get cost() {
    return this.cached ? "$0 (cached)" : money(this.usage?.cost);
  }

  show(ms) {
    const rate = this.first === null ? null : this.tokens / Math.max(0.001, (ms - this.first) / 1000);
    describe(byId("meters"), [
      ["First token", seconds(this.first)],
      ["Time", seconds(ms)],
      ["Streamed", `${count(this.tokens)} tokens`],
      ["Speed", rate === null || this.tokens < 3 ? "–" : `${count(Math.round(rate))} /s`],
      ["Prompt", this.usage ? `${count(this.usage.prompt_tokens)} tokens` : "–"],
      ["Completion", this.usage ? `${count(this.usage.completion_tokens)} tokens` : "–"],
      ["Cost", this.cost],
      ["Run", this.run || "–"],
    ]);
  }
}
