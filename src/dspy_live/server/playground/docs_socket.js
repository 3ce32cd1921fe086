// "Try it" for the WebSockets: opens one, sends frames, and shows the frames of both sides as they come.

import { key } from "./api.js";
import { button, el } from "./dom.js";

const MOST = 500; // frames that are shown
const MOST_CHARACTERS = 1500; // of one frame

/** Return the node that tries the WebSockets of the document, `[[path, about], …]`. */
export function trySocket(all) {
  const examples = () => all.find(([each]) => each === path.value)[1].examples ?? {};
  const path = el("select", { id: "ws-path" }, ...all.map(([each]) => el("option", {}, each)));
  const frame = el("textarea", { id: "ws-frame", rows: 6, spellcheck: "false", "data-json": true });
  const log = el("div", { class: "frames", tabindex: "0", role: "log", "aria-label": "Frames", hidden: true });
  const status = el("p", { class: "try-status", role: "status" }, "Not connected");
  const socket = new Socket({ log, status, changed: (open) => (close.disabled = !open) });
  const close = button("Close", () => socket.close());
  close.disabled = true;

  const write = (value) => (frame.value = typeof value === "string" ? value : JSON.stringify(value, null, 2));
  const chips = Object.keys(examples()).map((name) => button(name, () => write(examples()[name].value), { class: "small" }));
  const first = () => write(Object.values(examples())[0]?.value ?? "");
  path.addEventListener("change", () => (socket.close(), first()));
  first();

  const form = el(
    "form",
    { class: "try", id: "ws-try", novalidate: true },
    el("div", { class: "field" }, el("label", { for: "ws-path" }, el("span", { class: "name" }, "Address")), path),
    el(
      "div",
      { class: "field" },
      el("label", { for: "ws-frame" }, el("span", { class: "name" }, "Frame"), el("span", { class: "type" }, "JSON or text")),
      el("div", { class: "examples", role: "group", "aria-label": "Examples" }, ...chips),
      frame,
    ),
    el("div", { class: "actions" }, el("button", { type: "submit", class: "primary" }, "Send"), close, status),
    log,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    socket.send(path.value, compact(frame.value));
  });
  return form;
}

// JSON goes on one line, as in the list of frames; any other text goes as it is.
function compact(text) {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return text;
  }
}

class Socket {
  #socket = null;

  constructor({ log, status, changed }) {
    Object.assign(this, { log, status, changed });
  }

  close() {
    this.#socket?.close();
  }

  /** Send a frame; where no connection is open, open one first. */
  send(path, text) {
    if (this.#socket?.readyState !== WebSocket.OPEN) this.#open(path, text);
    else this.#give(text);
  }

  #open(path, text) {
    this.close();
    this.log.replaceChildren();
    this.#say("Connecting");
    const socket = new WebSocket(address(path));
    this.#socket = socket;
    const current = (act) => (event) => this.#socket === socket && act(event);
    socket.onopen = current(() => {
      this.changed(true);
      this.#say("Connected", true);
      this.#give(text);
    });
    socket.onmessage = current(({ data }) => this.#show("received", data));
    socket.onclose = current(({ code, reason, wasClean }) => {
      this.changed(false);
      const refused = code === 1006 && !this.log.childElementCount;
      this.#say(refused ? "The server refused the connection" : `Closed: ${code}${reason && ` ${reason}`}`, wasClean && code < 4000);
    });
  }

  #give(text) {
    this.#socket.send(text);
    this.#show("sent", text);
  }

  #show(side, text) {
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
    const shown = text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}…` : text;
    this.log.hidden = false;
    this.log.append(el("p", { "data-side": side }, el("span", { class: "visually-hidden" }, `${side}: `), shown));
    if (this.log.childElementCount > MOST) this.log.firstChild.remove();
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  #say(text, ok = null) {
    this.status.textContent = text;
    if (ok === null) delete this.status.dataset.ok;
    else this.status.dataset.ok = String(ok);
  }
}

// Relative to this page, as every address here. A browser gives a WebSocket no headers: the key goes into the address.
function address(path) {
  const url = new URL(path.slice(1), document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  if (key.get()) url.searchParams.set("access_token", key.get());
  return url;
}
