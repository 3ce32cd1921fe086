// The outputs of a program, one card each; of several LM calls that speak in a field the newest one is shown.

import { OutputCard } from "./output_card.js";

export class Outputs {
  #cards = new Map();
  #place;
  #extra;

  constructor(place, fields) {
    for (const field of fields) this.#cards.set(field.name, new OutputCard(field));
    this.#place = place;
    this.#extra = new Map();
    const nodes = [...this.#cards.values()].map((card) => card.node);
    place.replaceChildren(...nodes);
  }

  has(name) {
    return this.#cards.has(name);
  }

  begin() {
    for (const card of this.#extra.values()) card.node.remove();
    this.#extra.clear();
    for (const card of this.#cards.values()) {
      card.clear();
      card.speaker = null;
      card.live(false);
    }
  }

  token({ field, text, lm_call: call, last }) {
    const card = this.#cards.get(field);
    if (card.speaker !== call) {
      card.clear("", card.filled);
      card.speaker = call;
    }
    card.append(text);
    card.live(!last);
  }

  partial({ field, value, lm_call: call, final }) {
    const card = this.#cards.get(field);
    card.speaker = call;
    card.set(value);
    card.live(!final);
  }

  restart({ lm_call: call, reason, fields }) {
    for (const [name, card] of this.#cards) {
      if (card.speaker === call && (!fields.length || fields.includes(name))) {
        card.clear(`begun again: ${reason}`, true);
        card.speaker = null;
      }
    }
  }

  /** The values that count. Text that is there already is left alone, so that a selection in it stays. */
  prediction(outputs) {
    for (const [name, value] of Object.entries(outputs)) {
      const card = this.#cards.get(name) ?? this.#more(name);
      card.set(value);
      card.live(false);
      card.flush();
    }
  }

  end() {
    for (const card of this.#cards.values()) {
      card.flush();
      card.live(false);
    }
  }

  // What a program gives beside the fields of its signature.
  #more(name) {
    if (!this.#extra.has(name)) {
      const card = new OutputCard({ name, type: "", schema: {}, description: "" });
      card.node.querySelector(".type").remove();
      this.#extra.set(name, card);
      this.#place.append(card.node);
    }
    return this.#extra.get(name);
  }
}

