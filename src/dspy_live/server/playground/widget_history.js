// A conversation: the turns of a dspy.History, each as the words of both sides, to be read, changed and taken out.

import { button, changed, el } from "./dom.js";
import { shapeOf } from "./shape.js";

export const historyWidget = (shape, about) => new HistoryWidget(about);

class HistoryWidget {
  labelled = null;
  #turns = [];

  constructor({ id, name, program }) {
    this.sides = sidesOf(program);
    this.list = el("ol", { class: "turns", "aria-label": name });
    this.adder = button("Add a turn", () => this.#begin(), { class: "small", id });
    this.clearer = button("Clear", () => (this.write(), this.focus(), changed(this.node)), { class: "small" }, name);
    this.empty = el("p", { class: "dim empty" }, "No turns yet: the conversation begins here.");
    this.node = el("div", { class: "history" }, this.empty, this.list, el("div", { class: "actions" }, this.adder, this.clearer));
    this.#show();
  }

  read() {
    return { messages: this.#turns.map(({ parts }) => Object.fromEntries(parts.map((each) => [each.key, each.read()]))) };
  }

  write(value) {
    this.#turns = [];
    this.list.replaceChildren();
    for (const message of value?.messages ?? []) this.#add(message);
    this.#show();
  }

  focus() {
    this.adder.focus();
  }

  #begin() {
    this.#add(blank(this.sides)).querySelector("textarea")?.focus();
    this.#show();
    changed(this.node);
  }

  #add(message) {
    const turn = { parts: Object.entries(message).map(([key, value]) => part(key, value, this.sides)) };
    const label = `Remove turn ${this.#turns.length + 1}`;
    const remove = button("×", () => this.#drop(turn), { class: "remove", "aria-label": label });
    turn.node = el("li", {}, el("div", { class: "cell" }, ...turn.parts.map((each) => each.node)), remove);
    this.#turns.push(turn);
    this.list.append(turn.node);
    return turn.node;
  }

  #drop(turn) {
    this.#turns = this.#turns.filter((each) => each !== turn);
    turn.node.remove();
    this.#show();
    this.focus();
    changed(this.node);
  }

  #show() {
    this.empty.hidden = this.#turns.length > 0;
    this.clearer.hidden = !this.#turns.length;
  }
}

/** The fields that a turn has on each side: the program's own, without the history. */
export function sidesOf(program) {
  const names = (fields) => fields.filter((field) => !isHistory(field)).map((field) => field.name);
  return { user: names(program.inputs), program: names(program.outputs) };
}

export const isHistory = (field) => shapeOf(field.schema).kind === "history";

const blank = (sides) => Object.fromEntries([...sides.user, ...sides.program.slice(-1)].map((key) => [key, ""]));

function part(key, value, sides) {
  const text = el("textarea", { rows: 1, "aria-label": key });
  text.value = typeof value === "string" ? value : JSON.stringify(value);
  const side = sides.program.includes(key) ? "program" : "user";
  const read = () => (typeof value === "string" || text.value !== JSON.stringify(value) ? text.value : value);
  return { key, read, node: el("div", { class: "words", "data-side": side }, el("span", { class: "who" }, key), text) };
}
