// A value as JSON: for types without a control of their own, and as another way into those that have one.

import { button, changed, el } from "./dom.js";
import { unfit } from "./problem.js";

export function jsonWidget(shape, { id, name, required }) {
  const input = el("textarea", { id, rows: 3, spellcheck: "false", "data-json": true });
  input.placeholder = shape.schema?.type === "array" ? "[…]" : shape.schema?.type === "object" ? "{…}" : "JSON";
  const read = (mode) => {
    const text = input.value.trim();
    if (text === "") return required ? unfit(mode, `${name} is needed.`, input) : undefined;
    try {
      return JSON.parse(text);
    } catch (error) {
      return unfit(mode, `${name} must be JSON: ${error.message}`, input);
    }
  };
  const write = (value) => (input.value = value === undefined ? "" : JSON.stringify(value, null, 2));
  return { node: input, labelled: input, read, write, focus: () => input.focus() };
}

/** A group of controls with a switch to its JSON and back. */
export const withJson = (group, about) => new EitherWay(group, about);

class EitherWay {
  labelled = null;
  #asText = false;

  constructor(group, about) {
    this.group = group;
    this.about = about;
    this.text = jsonWidget({}, { ...about, id: `${about.id}-json`, required: false });
    this.text.node.setAttribute("aria-label", `${about.name} as JSON`);
    this.text.node.hidden = true;
    const attributes = { class: "small flip", id: `${about.id}-flip`, "aria-pressed": "false" };
    this.extra = button("Edit as JSON", () => this.#flip(), attributes, `: ${about.name}`);
    this.problem = el("p", { class: "problem", role: "alert" });
    this.node = el("div", { class: "group" }, group.node, this.text.node, this.problem);
  }

  read(mode) {
    const value = this.#shown.read(mode);
    const missing = this.#asText && value === undefined && this.about.required;
    return missing ? unfit(mode, `${this.about.name} is needed.`, this.text.node) : value;
  }

  write(value) {
    this.#shown.write(value);
  }

  focus() {
    this.#shown.focus();
  }

  get #shown() {
    return this.#asText ? this.text : this.group;
  }

  #flip() {
    this.problem.textContent = "";
    try {
      if (this.#asText) this.group.write(this.text.read("send"));
      else this.text.write(this.group.read("draft"));
    } catch (error) {
      this.problem.textContent = error.message;
      this.text.focus();
      return;
    }
    this.#asText = !this.#asText;
    this.group.node.hidden = this.#asText;
    this.text.node.hidden = !this.#asText;
    this.extra.firstChild.data = this.#asText ? "Edit as a form" : "Edit as JSON";
    this.extra.setAttribute("aria-pressed", String(this.#asText));
    this.focus();
    changed(this.node);
  }
}
