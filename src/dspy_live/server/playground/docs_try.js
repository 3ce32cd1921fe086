// "Try it": sends one request to the server that this page came from, and shows what comes back as it comes.

import { authorized } from "./api.js";
import { copy, select } from "./clipboard.js";
import { curlOf } from "./docs_curl.js";
import { button, confirmOn, el, seconds } from "./dom.js";
import { highlighted } from "./highlight.js";
import { askKey } from "./key.js";
import { inline } from "./markdown_inline.js";

const MOST = 200_000; // characters of a reply that are shown

/** Return the node that tries an operation. */
export function tryIt(method, path, operation) {
  const fields = (operation.parameters ?? []).map((each) => parameter(each, operation.operationId));
  const media = operation.requestBody?.content?.["application/json"];
  const body = media ? bodyField(media, operation.operationId) : null;
  const status = el("p", { class: "try-status", role: "status" });
  const shown = el("pre", { class: "try-reply", tabindex: "0", role: "region", "aria-label": "Reply", hidden: true });
  let running = null;
  const send = el("button", { type: "submit", class: "primary" }, "Send");
  const stop = button("Cancel", () => running?.abort());
  stop.disabled = true;
  const asCurl = button("Copy as curl", () => offer(curl(), shown, asCurl), { class: "quiet" });
  const copier = button("Copy", () => offer(shown.textContent, shown, copier), { class: "small copy-reply", hidden: true }, "the reply");
  const reply = el("div", { class: "reply" }, shown, copier);
  const curl = () => curlOf(new URL(address(path, fields), location.href).href, request(method, fields, body));
  const nodes = fields.filter((each) => each.place !== "header").map((each) => each.node);
  const form = el("form", { class: "try", novalidate: true }, ...nodes, body?.node ?? "", headerFields(fields), el("div", { class: "actions" }, send, stop, status, el("span", { class: "grow" }), asCurl), reply);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    running?.abort();
    running = new AbortController();
    stop.disabled = false;
    shown.hidden = copier.hidden = false;
    shown.textContent = "";
    status.textContent = "Waiting";
    const began = performance.now();
    const say = (text) => (status.textContent = `${text} · ${seconds(performance.now() - began)}`);
    try {
      const reply = await fetch(address(path, fields), request(method, fields, body, running.signal));
      say(`${reply.status} ${reply.statusText}`);
      status.dataset.ok = String(reply.ok);
      await show(reply, shown);
      say(`${reply.status} ${reply.statusText}`);
      if (reply.status === 401) askKey();
    } catch (error) {
      status.dataset.ok = "false";
      say(error.name === "AbortError" ? "Cancelled" : error instanceof TypeError ? "No answer" : error.message);
    }
    stop.disabled = true;
  });
  return form;
}

// Copy a text, or show and select it where the browser gives no clipboard.
async function offer(text, place, pressed) {
  if (await copy(text)) return confirmOn(pressed, "Copied");
  place.hidden = false;
  place.textContent = text;
  select(place);
  confirmOn(pressed, "Press Ctrl C");
}

// Headers are seldom needed, so they are folded.
function headerFields(fields) {
  const nodes = fields.filter((each) => each.place === "header").map((each) => each.node);
  return nodes.length ? el("details", { class: "options" }, el("summary", {}, "Headers"), ...nodes) : "";
}

function parameter({ name, in: place, description, required, schema }, operation) {
  const id = `${operation}-${name}`;
  const input = el("input", { id, "aria-describedby": `${id}-hint`, "aria-required": required ? "true" : null, type: "text" });
  const hint = el("p", { class: "hint", id: `${id}-hint` }, ...inline(description ?? ""));
  const label = el("label", { for: id }, el("span", { class: "name" }, name), el("span", { class: "type" }, place), required ? "" : el("span", { class: "optional" }, "optional"));
  if (schema?.enum) input.value = schema.enum[0];
  return { name, place, read: () => input.value.trim(), node: el("div", { class: "field" }, label, hint, input) };
}

function bodyField(media, operation) {
  const id = `${operation}-body`;
  const input = el("textarea", { id, rows: 6, spellcheck: "false", "data-json": true });
  const examples = Object.entries(media.examples ?? {});
  const show = (value) => (input.value = JSON.stringify(value, null, 2));
  if (examples.length) show(examples[0][1].value);
  const label = el("label", { for: id }, el("span", { class: "name" }, "Body"), el("span", { class: "type" }, "JSON"));
  const chips = examples.length < 2 ? [] : examples.map(([name, { value }]) => button(name, () => show(value), { class: "small" }));
  const pick = chips.length ? el("div", { class: "examples", role: "group", "aria-label": "Examples" }, ...chips) : "";
  return { read: () => input.value, node: el("div", { class: "field" }, label, pick, input) };
}

// Relative to this page, so that a prefix in front of it stays.
function address(path, fields) {
  const filled = path.slice(1).replace(/\{(\w+)\}/g, (all, name) => encodeURIComponent(fields.find((each) => each.name === name)?.read() || all));
  const query = new URLSearchParams(fields.filter((each) => each.place === "query" && each.read()).map((each) => [each.name, each.read()]));
  return query.size ? `${filled}?${query}` : filled;
}

function request(method, fields, body, signal) {
  const headers = authorized(body ? { "content-type": "application/json" } : {});
  for (const each of fields) if (each.place === "header" && each.read()) headers[each.name] = each.read();
  return { method: method.toUpperCase(), headers, body: body?.read(), signal };
}

async function show(reply, place) {
  if (!reply.body) return;
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (text.length < MOST) place.append(part.value.slice(0, MOST - text.length));
    text += part.value;
  }
  if ((reply.headers.get("content-type") ?? "").startsWith("application/json") && text.length < MOST) {
    place.replaceChildren(...highlighted(JSON.stringify(JSON.parse(text), null, 2), "json"));
  }
  if (!text) place.textContent = "(no body)";
  if (text.length > MOST) place.append("\n… cut here");
}
