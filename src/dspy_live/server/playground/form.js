// The form of a program: one control per input field, chosen by its type.

import { el } from "./dom.js";
import { labelled } from "./field.js";
import { Problem } from "./problem.js";
import { shapeOf, typeLabel } from "./shape.js";
import { makeWidget } from "./widgets.js";

// A program whose inputs could not be found out takes any: they are given as one JSON object.
const ANYTHING = {
  name: "inputs",
  type: "JSON object",
  description: "This program takes any inputs: an object with one key for each.",
  required: false,
  schema: { type: "object" },
};

/** The controls of a program's fields, shown in `place`. */
export class Form {
  #fields;
  #place;
  #open;

  constructor(place, program) {
    this.#place = place;
    this.#open = program.open && !program.inputs.length;
    this.#fields = (this.#open ? [ANYTHING] : program.inputs).map((field) => makeField(field, program));
    const nodes = this.#fields.map(({ node }) => node);
    place.replaceChildren(...(nodes.length ? nodes : [el("p", { class: "dim" }, "This program takes no inputs.")]));
    this.reset();
  }

  /** Put the defaults back. */
  reset() {
    for (const { field, widget } of this.#fields) if (field.default != null) widget.write(field.default);
  }

  /** The inputs as JSON. In the mode "send" it marks everything that is wrong, and throws. */
  async read(mode = "send") {
    const values = {};
    let wrong = 0;
    if (mode === "send") this.clear();
    for (const { field, widget } of this.#fields) {
      try {
        const value = await widget.read(mode);
        if (value !== undefined) values[field.name] = value;
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        this.problem(field.name, error.message, error.element, wrong === 0);
        wrong += 1;
      }
    }
    if (wrong) throw new Problem("some inputs do not fit");
    return this.#open ? (values.inputs ?? {}) : values;
  }

  /** Put values in; those of unknown fields are passed over. */
  write(given) {
    const values = this.#open ? { inputs: given } : given;
    for (const { field, widget } of this.#fields) {
      if (values[field.name] !== undefined && values[field.name] !== null) widget.write(values[field.name]);
    }
  }

  /** Empty the texts, and leave what was chosen as it is. */
  clearTexts() {
    for (const { shape, widget } of this.#fields) if (shape.kind === "text") widget.write("");
  }

  /** Whether nothing is written in the texts. */
  async saysNothing() {
    const values = await this.read("draft");
    return this.#fields.every(({ field, shape }) => shape.kind !== "text" || !values[field.name]);
  }

  /** Say in the only control that is shown, if it is a text, what belongs there; with `null` take it back. */
  hintInOnly(text) {
    const shown = this.#fields.filter(({ node }) => !node.hidden);
    const only = text !== null && shown.length === 1 && shown[0].shape.kind === "text";
    for (const { field, shape, widget } of shown) {
      if (shape.kind === "text") widget.labelled.placeholder = only ? field.description || text : "";
    }
    this.#place.toggleAttribute("data-only", only);
  }

  widget(name) {
    return this.#fields.find(({ field }) => field.name === name)?.widget;
  }

  clear() {
    for (const node of this.#place.querySelectorAll(".problem")) node.textContent = "";
    for (const node of this.#place.querySelectorAll("[aria-invalid]")) node.removeAttribute("aria-invalid");
  }

  /** Show what is wrong at one field; false when there is no such field here. */
  problem(name, message, element = null, focus = true) {
    const found = this.#fields.find(({ field }) => field.name === name);
    if (!found) return false;
    this.#place.querySelector(`#${CSS.escape(`in-${name}-problem`)}`).textContent = message;
    const control = element ?? found.widget.labelled;
    control?.setAttribute("aria-invalid", "true");
    if (focus) control ? control.focus() : found.widget.focus();
    return true;
  }

  /** Go to the first field that is shown. */
  focus() {
    this.#fields.find(({ node }) => !node.hidden)?.widget.focus();
  }
}

function makeField(field, program) {
  const shape = shapeOf(field.schema ?? {});
  const about = { id: `in-${field.name}`, name: field.name, required: field.required, field, program, top: true };
  const widget = makeWidget(shape, about);
  return { field, shape, widget, node: labelled(field, typeLabel(field), widget, about.id, field.required) };
}
