// Two runs side by side, with what differs marked.

import { difference } from "./diff.js";
import { byId, count, el, seconds } from "./dom.js";
import { asText } from "./value_view.js";

/** Show two runs in the dialog; the older one stands on the left. */
export function compareRuns(one, other) {
  const [left, right] = one.at <= other.at ? [one, other] : [other, one];
  const rows = [
    ...facts(left, right).map(([name, a, b]) => row(name, a, b)),
    ...section("Input", left.inputs, right.inputs),
    ...section("Option", left.config ?? {}, right.config ?? {}),
    ...section("Output", left.outputs ?? {}, right.outputs ?? {}),
  ];
  byId("compare-left").textContent = when(left);
  byId("compare-right").textContent = when(right);
  byId("compare-rows").replaceChildren(...rows);
  byId("compare-dialog").showModal();
}

const when = ({ at, text }) => `${new Date(at).toLocaleTimeString()} · ${text}`;

function facts(a, b) {
  const pair = (name, of) => [name, of(a), of(b)];
  return [
    pair("Program", (run) => run.program),
    pair("Time", (run) => seconds(run.ms)),
    pair("Tokens", (run) => count(run.tokens)),
    pair("Cost", (run) => run.cost ?? "–"),
  ];
}

function section(noun, left, right) {
  const names = [...new Set([...Object.keys(left), ...Object.keys(right)])];
  return names.map((name) => row(`${noun}: ${name}`, text(left[name]), text(right[name])));
}

const text = (value) => (value === undefined ? "" : asText(value));

function row(name, a, b) {
  const [left, right] = difference(a, b);
  const cells = [left, right].map((side) => el("td", {}, ...side.map(marked)));
  return el("tr", { "data-differs": a !== b }, el("th", { scope: "row" }, name), ...cells);
}

const marked = ([kind, words]) => (kind === "same" ? words : el("mark", {}, words));
