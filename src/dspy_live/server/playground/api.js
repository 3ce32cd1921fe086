// Talking to the server: the key, JSON requests, and the event stream of a run.

import { asciiJson } from "./snippets.js";

const KEY = "dspy-live-key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

export class Failure extends Error {
  constructor(error, status) {
    super(error.message);
    this.type = error.type;
    this.field = error.field;
    this.errors = error.errors;
    this.status = status;
  }
}

/** Headers with the key, where there is one. */
export function authorized(more = {}) {
  return key.get() ? { ...more, authorization: `Bearer ${key.get()}` } : more;
}

async function failure(reply) {
  const body = await reply.json().catch(() => null);
  return new Failure(body?.error ?? { type: "http", message: `the server answered ${reply.status}` }, reply.status);
}

export async function getJson(path) {
  const reply = await fetch(path, { headers: authorized() });
  if (!reply.ok) throw await failure(reply);
  return reply.json();
}

/** Run a program; yields {event, id, data} until the stream ends. Aborting the signal stops the run. */
export async function* run(path, body, config, signal) {
  const more = { "content-type": "application/json" };
  if (config) more["x-config"] = asciiJson(config);
  const reply = await fetch(path, { method: "POST", headers: authorized(more), body: JSON.stringify(body), signal });
  if (!reply.ok) throw await failure(reply);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  const event = { event: "message", id: "", data: "" };
  for (const line of block.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) event[line.slice(0, at)] = line.slice(at + 2);
  }
  if (!event.data) return null;
  if (event.data !== "[DONE]") event.data = JSON.parse(event.data);
  return event;
}
