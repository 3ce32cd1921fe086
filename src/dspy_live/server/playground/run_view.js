// Shows one run: live, or a past one again. Each event goes to the outputs, the steps and the meters.

import { byId } from "./dom.js";
import { Meters } from "./meters.js";
import { Outputs } from "./outputs.js";
import { Timeline } from "./timeline.js";

export class RunView {
  #outputs = null;
  #timeline = new Timeline(byId("steps"));
  #meters = new Meters();

  /** Show the cards of a program, empty. */
  program(program) {
    this.#outputs = new Outputs(byId("outputs"), program.outputs);
    this.begin();
    this.#ran(false);
    this.state("idle", "Ready");
  }

  get meters() {
    return this.#meters;
  }

  begin() {
    this.#outputs.begin();
    this.#timeline.begin();
    this.#meters = new Meters();
    this.#meters.show(null);
    this.fail("");
  }

  #ran(yes) {
    byId("meters").hidden = !yes;
    byId("nothing").hidden = yes;
  }

  state(kind, text) {
    if (kind !== "idle") this.#ran(true);
    const node = byId("state");
    if (node.dataset.state !== kind) node.dataset.state = kind;
    if (node.textContent !== text) node.textContent = text;
  }

  fail(message) {
    byId("failure").textContent = message;
    byId("failure").hidden = !message;
  }

  tick(ms) {
    this.#meters.show(ms);
  }

  event(ms, name, data) {
    this.#on[name]?.(ms, data);
  }

  end(ms) {
    this.#outputs.end();
    this.#meters.show(ms);
  }

  /** Show a past run as it was. */
  replay(record) {
    this.begin();
    for (const [ms, name, data] of record.events) this.event(ms, name, data);
    this.state(record.state, record.text);
    this.end(record.ms);
  }

  #on = {
    started: (ms, { run }) => {
      this.#meters.run = run;
      this.state("running", "Running");
    },
    status: (ms, data) => {
      this.state("running", data.message);
      this.#timeline.status(ms, data);
    },
    token: (ms, data) => {
      for (let n = data.tokens ?? 1; n > 0; n -= 1) this.#meters.token(ms);
      if (this.#outputs.has(data.field)) {
        this.#outputs.token(data);
        this.#timeline.speaks(ms, data);
      } else if (data.text) {
        this.#timeline.text(ms, data);
      }
      this.state("running", "Streaming");
    },
    partial: (ms, data) => {
      if (this.#outputs.has(data.field)) {
        this.#outputs.partial(data);
        this.#timeline.speaks(ms, data);
      } else {
        this.#timeline.value(ms, data);
      }
    },
    restart: (ms, data) => {
      this.#outputs.restart(data);
      this.#timeline.restart(ms, data);
    },
    reasoning: (ms, data) => this.#timeline.reasoning(ms, data),
    tool: (ms, data) => this.#timeline.tool(ms, data),
    custom: (ms, data) => this.#timeline.custom(ms, data),
    usage: (ms, data) => {
      this.#meters.add(data);
      this.#timeline.usage(ms, data);
    },
    prediction: (ms, data) => {
      this.#meters.cached = data.run.cached;
      this.#outputs.prediction(data.outputs);
      this.state("done", data.run.cached ? "Done, from the cache" : "Done");
    },
    error: (ms, { error }) => {
      this.#timeline.error(ms, error);
      this.fail(error.message);
      this.state("failed", error.type === "cancelled" ? "Cancelled" : "Failed");
    },
  };
}
