// One output field: its text or value as it grows, its source, and a button to copy it.

import { copy, select } from "./clipboard.js";
import { button, confirmOn, el } from "./dom.js";
import { MarkdownStream } from "./markdown.js";
import { typeLabel } from "./shape.js";
import { asText, valueView } from "./value_view.js";

export class OutputCard {
  speaker = null;
  #text = "";
  #value;
  #frame = 0;

  constructor(field) {
    this.name = field.name;
    this.value = el("div", { class: "value", tabindex: "0", role: "region", "aria-label": field.name });
    this.source = el("pre", { class: "source", tabindex: "0", role: "region", "aria-label": `${field.name}, as it came`, hidden: true });
    this.note = el("span", { class: "note" });
    this.flip = button("Source", () => this.#flip(), { class: "small", "aria-pressed": "false" }, `of ${field.name}`);
    this.copier = button("Copy", () => this.#copy(), { class: "small" }, field.name);
    const title = el("h3", {}, el("span", { class: "name" }, field.name), el("span", { class: "type" }, typeLabel(field)));
    const head = el("div", { class: "output-head" }, title, this.note, this.flip, this.copier);
    const about = field.description ? el("p", { class: "hint" }, field.description) : null;
    this.node = el("article", { class: "output", "aria-label": field.name }, head, about, this.value, this.source);
    this.stream = new MarkdownStream(this.value);
    this.clear();
  }

  get filled() {
    return this.#text !== "" || this.#value !== undefined;
  }

  /** Add text; it is drawn once per painted frame, however many tokens came. */
  append(text) {
    this.#text += text;
    this.#value = undefined;
    this.#later();
  }

  /** Show a value in place of what was there. */
  set(value) {
    if (typeof value === "string") {
      this.#text = value;
      this.#value = undefined;
    } else {
      this.#text = "";
      this.#value = value;
    }
    this.#later();
  }

  live(on) {
    this.node.toggleAttribute("data-live", on);
  }

  /** Empty it. Where another text will follow at once the height is kept, so that what is below does not jump. */
  clear(note = "", keepHeight = false) {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.value.style.minHeight = keepHeight ? `${this.value.offsetHeight}px` : "";
    this.#text = "";
    this.#value = undefined;
    this.note.textContent = note;
    this.stream.clear();
    this.source.textContent = "";
    this.#buttons();
  }

  flush() {
    cancelAnimationFrame(this.#frame);
    this.#draw();
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const atEnd = this.value.scrollHeight - this.value.scrollTop - this.value.clientHeight < 40;
    if (this.#value !== undefined) {
      this.stream.clear();
      this.value.replaceChildren(valueView(this.#value));
    } else if (this.#text !== this.stream.text) {
      this.stream.show(this.#text);
    }
    if (!this.source.hidden) this.source.textContent = this.#raw();
    if (atEnd && this.node.hasAttribute("data-live")) this.value.scrollTop = this.value.scrollHeight;
    this.#buttons();
  }

  #raw() {
    return this.#value !== undefined ? asText(this.#value) : this.#text;
  }

  #buttons() {
    this.flip.disabled = this.copier.disabled = !this.filled;
    this.node.toggleAttribute("data-empty", !this.filled);
  }

  #flip() {
    const source = this.source.hidden;
    this.source.hidden = !source;
    this.value.hidden = source;
    this.source.textContent = source ? this.#raw() : "";
    this.flip.setAttribute("aria-pressed", String(source));
  }

  async #copy() {
    if (await copy(this.#raw())) return confirmOn(this.copier, "Copied");
    if (this.source.hidden) this.#flip();
    select(this.source);
    confirmOn(this.copier, "Press Ctrl C");
  }
}
