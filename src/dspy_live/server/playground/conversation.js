// The chat of a program with a dspy.History: its turns so far above the answer that is being written.

import { el } from "./dom.js";
import { isHistory, sidesOf } from "./widget_history.js";
import { valueView } from "./value_view.js";

export class Conversation {
  constructor(place, program) {
    this.place = place;
    this.sides = sidesOf(program);
    this.field = program.inputs.find(isHistory).name;
  }

  /** Show the turns so far, and the words that are answered now. */
  show(turns, asked = null) {
    const past = turns.flatMap((turn) => [this.#bubble("user", turn), this.#bubble("program", turn)]);
    this.place.replaceChildren(...past, ...(asked ? [this.#bubble("user", asked)] : []));
    this.place.hidden = !this.place.childElementCount;
  }

  /** The turn that a finished run adds: what was asked, and what came back. */
  turn(inputs, outputs) {
    const { [this.field]: _, ...asked } = inputs;
    return { ...asked, ...outputs };
  }

  #bubble(side, turn) {
    const names = this.sides[side].filter((name) => turn[name] !== undefined && turn[name] !== "");
    const parts = names.flatMap((name) => [names.length > 1 ? el("p", { class: "who" }, name) : "", valueView(turn[name])]);
    return el("div", { class: "bubble", "data-side": side }, el("span", { class: "visually-hidden" }, side === "user" ? "You: " : "Answer: "), ...parts);
  }
}

/** Whether a program has a conversation to go on with. */
export const hasHistory = (program) => program.inputs.some(isHistory);
