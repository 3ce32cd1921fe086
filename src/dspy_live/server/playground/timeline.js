// What happened on the way to the outputs: LM calls with their reasoning, tools with arguments and results, in order.

import { count, el, money, seconds } from "./dom.js";
import { treeOf, valueView } from "./value_view.js";

export class Timeline {
  #panel;
  #list;
  #calls = new Map();
  #tools = new Map();

  constructor(panel) {
    this.#panel = panel;
    this.#list = panel.querySelector("ol");
    this.begin();
  }

  begin() {
    this.#calls.clear();
    this.#tools.clear();
    this.#list.replaceChildren();
    this.#show();
  }

  /** Add one entry at `ms` after the run's start; returns its parts. */
  add(ms, kind, title, ...detail) {
    const took = el("span", { class: "took" });
    const body = el("div", { class: "detail" }, ...detail);
    const head = el("p", { class: "entry" }, el("span", { class: "kind" }, kind), " ", el("span", { class: "what" }, title), took);
    const node = el("li", { "data-kind": kind }, el("time", {}, seconds(ms)), el("div", { class: "step" }, head, body));
    this.#list.append(node);
    this.#show();
    return { ms, node, body, took, texts: new Map() };
  }

  status(ms, { message, module }) {
    this.add(ms, "status", module ? `${message} (${module})` : message);
  }

  /** A tool is called, and its result joins the call. */
  tool(ms, { name, stage, id, arguments: given, result, duration_ms: took }) {
    if (stage === "call") {
      this.#tools.set(id, this.add(ms, "tool", name, ...labelled("Arguments", given)));
      return;
    }
    const entry = this.#tools.get(id) ?? this.add(ms, "tool", name);
    entry.took.textContent = seconds(took ?? ms - entry.ms);
    entry.node.toggleAttribute("data-failed", stage === "error");
    entry.body.append(...labelled(stage === "error" ? "Error" : "Result", result));
  }

  /** Text of an inner predictor's field, which is no output of the program. */
  text(ms, { predictor, lm_call: call, field, text }) {
    if (field === "reasoning") return this.reasoning(ms, { predictor, lm_call: call, text });
    const entry = this.#call(ms, call, predictor);
    this.#grow(entry, field, text, () => {
      const words = el("div", { class: "words" });
      entry.body.append(el("div", { class: "pair" }, el("span", { class: "key" }, field), words));
      return words;
    });
  }

  /** A value of an inner predictor's field. */
  value(ms, { predictor, lm_call: call, field, value }) {
    const entry = this.#call(ms, call, predictor);
    this.#grow(entry, field, "", () => {
      const place = el("div", { class: "pair" });
      entry.body.append(place);
      return place;
    }).replaceChildren(...labelled(field, value));
  }

  /** The model's own reasoning, folded: it is long, and not the answer. */
  reasoning(ms, { predictor, lm_call: call, text }) {
    const entry = this.#call(ms, call, predictor);
    this.#grow(entry, "reasoning\0", text, () => {
      const words = el("div", { class: "words" });
      entry.body.append(el("details", { class: "reasoning" }, el("summary", {}, "Reasoning"), words));
      return words;
    });
  }

  /** An output field is being written by this LM call. */
  speaks(ms, { predictor, lm_call: call, field }) {
    const entry = this.#call(ms, call, predictor);
    entry.writes ??= new Set();
    if (entry.writes.has(field)) return;
    entry.writes.add(field);
    entry.writing ??= entry.body.appendChild(el("p", { class: "dim" }));
    entry.writing.textContent = `writes ${[...entry.writes].join(", ")}`;
  }

  usage(ms, { predictor, lm_call: call, model, prompt_tokens: prompt, completion_tokens: completion, cost, cached, truncated }) {
    const entry = this.#call(ms, call, predictor);
    const spent = cached ? "from the cache" : `${count(prompt)} + ${count(completion)} tokens, ${money(cost)}`;
    entry.took.textContent = seconds(ms - entry.ms);
    entry.body.append(el("p", { class: "dim" }, `${model}: ${spent}${truncated ? ", cut at its limit of tokens" : ""}`));
  }

  restart(ms, { reason, predictor }) {
    this.add(ms, "restart", predictor ? `${predictor}: ${reason}` : reason);
  }

  custom(ms, { name, data }) {
    this.add(ms, "event", name, ...labelled("Data", data));
  }

  error(ms, { type, message }) {
    this.add(ms, "error", type, el("p", {}, message));
  }

  #call(ms, call, predictor) {
    if (!this.#calls.has(call)) this.#calls.set(call, this.add(ms, "LM call", predictor || `number ${call}`));
    return this.#calls.get(call);
  }

  #grow(entry, name, text, make) {
    if (!entry.texts.has(name)) entry.texts.set(name, make());
    const place = entry.texts.get(name);
    if (text) place.append(text);
    return place;
  }

  #show() {
    const steps = this.#list.childElementCount;
    this.#panel.hidden = steps === 0;
    this.#panel.querySelector(".count").textContent = steps || "";
  }
}

function labelled(name, value) {
  const empty = value === undefined || value === null || (typeof value === "object" && !Object.keys(value).length);
  if (empty) return [];
  return [el("div", { class: "pair" }, el("span", { class: "key" }, name), shownValue(value))];
}

function shownValue(value) {
  if (Array.isArray(value)) return valueView(value);
  return typeof value === "object" ? el("div", { class: "tree" }, treeOf(value, 1)) : el("div", { class: "words" }, String(value));
}
