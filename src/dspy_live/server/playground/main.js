// The playground: wires the form, the run and what comes back.

import { curl, getJson, run } from "./api.js";
import { byId, count, describe, el, money, seconds } from "./dom.js";
import { buildForm } from "./form.js";
import { askKey, withKey } from "./key.js";
import { watchServer } from "./live.js";
import { Outputs, Steps } from "./output.js";
import { setUpTheme } from "./theme.js";

let program;
let form;
let outputs;
let current = null;
let look = () => {};
const steps = new Steps();

const path = () => `programs/${program.name}/predict/stream`;

function state(kind, text) {
  byId("state").dataset.state = kind;
  byId("state").textContent = text;
}

function show(chosen) {
  current?.abort();
  program = chosen;
  byId("about").textContent = chosen.description;
  form = buildForm(byId("inputs"), chosen.inputs);
  outputs = new Outputs(byId("outputs"), chosen.outputs);
  steps.begin();
  describe(byId("meters"), []);
  fail("");
  state("idle", "Ready");
}

function fail(message) {
  byId("failure").textContent = message;
  byId("failure").hidden = !message;
}

function config() {
  const text = byId("config").value.trim();
  byId("config-error").textContent = "";
  let options = null;
  try {
    if (text) options = JSON.parse(text);
    if (options !== null && (typeof options !== "object" || Array.isArray(options))) throw new Error("give an object");
  } catch (error) {
    byId("config-error").textContent = `This must be a JSON object: ${error.message}`;
    byId("config").focus();
    throw error;
  }
  if (byId("fresh").checked) options = { rollout_id: Math.floor(Math.random() * 2 ** 31), ...options };
  return options;
}

/** What one run shows beside its text. */
class Meters {
  constructor() {
    this.began = performance.now();
    this.first = null;
    this.tokens = 0;
    this.usage = null;
    this.run = "";
    this.cached = false;
    this.timer = setInterval(() => this.show(), 200);
  }

  token() {
    this.tokens += 1;
    this.first ??= performance.now() - this.began;
  }

  add(usage) {
    this.usage ??= { prompt_tokens: 0, completion_tokens: 0, cost: 0 };
    this.usage.prompt_tokens += usage.prompt_tokens;
    this.usage.completion_tokens += usage.completion_tokens;
    const unknown = this.usage.cost === null || (usage.cost === null && !usage.cached);
    this.usage.cost = unknown ? null : this.usage.cost + (usage.cost ?? 0);
  }

  stop() {
    clearInterval(this.timer);
    this.show();
  }

  show() {
    const passed = performance.now() - this.began;
    const rate = this.first === null ? null : this.tokens / Math.max(0.001, (passed - this.first) / 1000);
    describe(byId("meters"), [
      ["First token", seconds(this.first)],
      ["Time", seconds(passed)],
      ["Streamed", `${count(this.tokens)} tokens`],
      ["Speed", rate === null || this.tokens < 3 ? "–" : `${count(Math.round(rate))} /s`],
      ["Prompt", this.usage ? `${count(this.usage.prompt_tokens)} tokens` : "–"],
      ["Completion", this.usage ? `${count(this.usage.completion_tokens)} tokens` : "–"],
      ["Cost", this.cached ? "$0 (cached)" : money(this.usage?.cost)],
      ["Run", this.run || "–"],
    ]);
  }
}

const on = {
  started: ({ run: id }, meters) => ((meters.run = id), state("running", "Running")),
  status: ({ message, module }) => (state("running", message), steps.add("status", message, module || undefined)),
  token(data, meters) {
    meters.token();
    if (outputs.has(data.field)) outputs.token(data);
    else if (data.text) steps.text("field", `${data.predictor} · ${data.field}`, `${data.lm_call} ${data.field}`, data.text);
    state("running", "Streaming");
  },
  partial: (data) => outputs.has(data.field) && outputs.partial(data),
  restart: (data) => (outputs.restart(data), steps.add("restart", data.reason)),
  reasoning: (data) => steps.text("reasoning", data.predictor, `${data.lm_call} reasoning`, data.text),
  tool: (data) => steps.add("tool", `${data.name}: ${data.stage}`, data.stage === "call" ? data.arguments : data.result),
  custom: (data) => steps.add("event", data.name, data.data),
  usage: (data, meters) => meters.add(data),
  prediction(data, meters) {
    meters.cached = data.run.cached;
    outputs.prediction(data.outputs);
    state("done", data.run.cached ? "Done, from the cache" : "Done");
  },
  error({ error }) {
    steps.add("error", error.type, error.message);
    fail(error.message);
    state("failed", error.type === "cancelled" ? "Cancelled" : "Failed");
  },
};

async function start() {
  if (current) return;
  let inputs, options;
  try {
    inputs = await form.read();
    options = config();
  } catch {
    return;
  }
  current = new AbortController();
  byId("cancel").disabled = false;
  byId("run").disabled = true;
  byId("outputs").setAttribute("aria-busy", "true");
  fail("");
  outputs.begin();
  steps.begin();
  state("running", "Waiting");
  const meters = new Meters();
  try {
    for await (const { event, data } of run(path(), inputs, options, current.signal)) on[event]?.(data, meters);
  } catch (error) {
    if (error.name === "AbortError") state("failed", "Cancelled");
    else refused(error);
  } finally {
    meters.stop();
    outputs.end();
    byId("outputs").removeAttribute("aria-busy");
    byId("cancel").disabled = true;
    byId("run").disabled = false;
    current = null;
    look();
  }
}

function refused(error) {
  state("failed", "Failed");
  if (error.status === 401) askKey();
  if (!(error.field && form.problem(error.field, error.message))) fail(error.message);
}

async function load() {
  setUpTheme();
  const { title, simulated, programs } = await withKey(() => getJson("programs"));
  document.title = byId("title").textContent = title;
  byId("simulated").hidden = !simulated;
  const pick = byId("program");
  pick.replaceChildren(...programs.map((each) => el("option", {}, each.name)));
  pick.addEventListener("change", () => show(programs[pick.selectedIndex]));
  byId("program-pick").hidden = programs.length < 2;
  byId("program-name").textContent = programs.length < 2 && programs[0].name !== title ? programs[0].name : "";
  show(programs[0]);
  form.focus();
  look = watchServer();
}

byId("form").addEventListener("submit", (event) => (event.preventDefault(), start()));
byId("cancel").addEventListener("click", () => current?.abort());
byId("key-button").addEventListener("click", () => askKey());
byId("curl").addEventListener("click", async () => {
  await navigator.clipboard.writeText(curl(path(), await form.read(), config()));
  byId("curl").textContent = "Copied";
  setTimeout(() => (byId("curl").textContent = "Copy as curl"), 1500);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start();
  if (event.key === "Escape" && !byId("key-dialog").open) current?.abort();
});

load().catch((error) => fail(error.message));
