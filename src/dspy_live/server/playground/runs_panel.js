// The list of past runs: to show one again, and to compare two.

import { count, el, seconds } from "./dom.js";
import { keep, kept } from "./kept.js";
import { RunRecord } from "./run_record.js";

const MOST = 20;
const MOST_CHARACTERS = 200_000; // of one run that is kept over a reload

export class RunsPanel {
  #list;
  #records = [];
  #chosen = [];

  constructor(panel, { show, compare }) {
    this.panel = panel;
    this.show = show;
    this.#list = panel.querySelector("ol");
    this.comparer = panel.querySelector("#compare");
    this.comparer.addEventListener("click", () => compare(...this.#chosen));
    panel.querySelector("#forget").addEventListener("click", () => this.#forget());
    this.#records = (kept("runs") ?? []).map((each) => new RunRecord(each));
    this.#draw();
  }

  add(record) {
    this.#records.unshift(record);
    this.#records.splice(MOST);
    this.#chosen = this.#chosen.filter((each) => this.#records.includes(each));
    this.#keep();
    this.#draw();
  }

  /** Mark the run that the page shows. */
  mark(record) {
    for (const node of this.#list.children) {
      if (node.record === record) node.setAttribute("aria-current", "true");
      else node.removeAttribute("aria-current");
    }
  }

  // The newest come first; what does not fit into the tab's store is not kept over a reload.
  #keep() {
    const small = this.#records.filter((each) => JSON.stringify(each).length < MOST_CHARACTERS);
    for (let n = small.length; n >= 0; n -= 1) if (keep("runs", small.slice(0, n))) return;
  }

  #forget() {
    this.#records = [];
    this.#chosen = [];
    this.#keep();
    this.#draw();
    document.querySelector("#run").focus();
  }

  #draw() {
    this.panel.hidden = !this.#records.length;
    this.#list.replaceChildren(...this.#records.map((record) => this.#row(record)));
    this.#update();
  }

  #row(record) {
    const tick = el("input", { type: "checkbox", "aria-label": `Compare: ${record.title}` });
    tick.checked = this.#chosen.includes(record);
    tick.addEventListener("change", () => this.#choose(record, tick.checked));
    const time = new Date(record.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    const about = [record.program, seconds(record.ms), `${count(record.tokens)} tokens`, record.cost].filter(Boolean).join(" · ");
    const open = el(
      "button",
      { type: "button", class: "past" },
      el("span", { class: "past-title" }, record.title),
      el("span", { class: "past-about" }, el("span", { class: "dot", "data-state": record.state }), `${record.text} · ${time} · ${about}`),
    );
    open.addEventListener("click", () => this.show(record));
    const node = el("li", {}, tick, open);
    node.record = record;
    return node;
  }

  #choose(record, on) {
    this.#chosen = this.#chosen.filter((each) => each !== record);
    if (on) this.#chosen = [...this.#chosen.slice(-1), record];
    for (const node of this.#list.children) node.querySelector("input").checked = this.#chosen.includes(node.record);
    this.#update();
  }

  #update() {
    this.comparer.disabled = this.#chosen.length !== 2;
    this.comparer.title = this.comparer.disabled ? "Tick two runs" : "";
  }
}
