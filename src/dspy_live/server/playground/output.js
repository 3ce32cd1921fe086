// What comes back: output fields that fill as they stream, and the steps behind them.

import { byId, el } from "./dom.js";

/** The cards of a program's outputs. */
export class Outputs {
  #cards = new Map();
  #pending = new Map();
  #frame = 0;

  constructor(place, fields) {
    for (const field of fields) {
      const value = el("div", { class: "value", "data-kind": field.type === "str" ? "text" : "json" });
      const note = el("span", { class: "note" });
      const title = el("h3", {}, field.name, el("span", { class: "type" }, field.type), note);
      const node = el("article", { class: "output", "aria-label": field.name }, title, value);
      if (field.description) title.title = field.description;
      this.#cards.set(field.name, { node, value, note, speaker: null });
    }
    place.replaceChildren(...[...this.#cards.values()].map((card) => card.node));
  }

  has(name) {
    return this.#cards.has(name);
  }

  begin() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#pending.clear();
    for (const card of this.#cards.values()) {
      card.value.textContent = card.note.textContent = "";
      card.speaker = null;
      card.node.toggleAttribute("data-live", false);
    }
  }

  /** Text of one field; the newest LM call that speaks in a field is the one that is shown. */
  token({ field, text, lm_call: call, last }) {
    const card = this.#cards.get(field);
    if (card.speaker !== call) this.#clear(card, field, call);
    card.node.toggleAttribute("data-live", !last);
    this.#pending.set(field, (this.#pending.get(field) ?? "") + text);
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  partial({ field, value, lm_call: call, final }) {
    const card = this.#cards.get(field);
    card.speaker = call;
    card.value.textContent = pretty(value);
    card.node.toggleAttribute("data-live", !final);
  }

  restart({ lm_call: call, reason, fields }) {
    for (const [name, card] of this.#cards) {
      if (card.speaker === call && (!fields.length || fields.includes(name))) {
        this.#clear(card, name, null);
        card.note.textContent = `begun again: ${reason}`;
      }
    }
  }

  /** The values that count. Text that is already there is left alone, so that a selection in it stays. */
  prediction(outputs) {
    this.#flush();
    for (const [name, card] of this.#cards) {
      card.node.toggleAttribute("data-live", false);
      if (!(name in outputs)) continue;
      const text = typeof outputs[name] === "string" ? outputs[name] : pretty(outputs[name]);
      if (card.value.textContent !== text) card.value.textContent = text;
    }
  }

  end() {
    this.#flush();
    for (const card of this.#cards.values()) card.node.toggleAttribute("data-live", false);
  }

  #clear(card, name, speaker) {
    this.#pending.delete(name);
    card.value.textContent = "";
    card.speaker = speaker;
  }

  // Once per painted frame, however many tokens came.
  #flush() {
    this.#frame = 0;
    for (const [name, text] of this.#pending) {
      const { value } = this.#cards.get(name);
      const atEnd = value.scrollHeight - value.scrollTop - value.clientHeight < 30;
      if (value.lastChild instanceof Text) value.lastChild.appendData(text);
      else value.append(text);
      if (atEnd) value.scrollTop = value.scrollHeight;
    }
    this.#pending.clear();
  }
}

/** The list of what happened on the way: status, tools, inner predictors, restarts. */
export class Steps {
  #list = byId("steps-list");
  #texts = new Map();
  #began = 0;

  begin() {
    this.#began = performance.now();
    this.#texts.clear();
    this.#list.replaceChildren();
    this.#show();
  }

  add(kind, title, detail) {
    const time = el("time", {}, `${((performance.now() - this.#began) / 1000).toFixed(2)} s`);
    const item = el("li", { "data-kind": kind }, time, el("span", { class: "kind" }, kind), title);
    if (detail !== undefined) item.append(el("pre", {}, typeof detail === "string" ? detail : pretty(detail)));
    this.#list.append(item);
    this.#show();
    return item;
  }

  /** Text that belongs to no output of the program: an inner predictor's field, or reasoning. */
  text(kind, title, id, text) {
    let node = this.#texts.get(id);
    if (!node) {
      node = this.add(kind, title, "").querySelector("pre");
      this.#texts.set(id, node);
    }
    node.append(text);
  }

  #show() {
    byId("steps").hidden = this.#list.childElementCount === 0;
    byId("steps-count").textContent = this.#list.childElementCount || "";
  }
}

export function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
