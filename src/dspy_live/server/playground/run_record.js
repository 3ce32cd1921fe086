// One run as it can be shown again: its inputs, and its events with their times.

const MOST_EVENTS = 2000;

export class RunRecord {
  constructor(given) {
    Object.assign(this, { events: [], ms: 0, state: "running", text: "", outputs: null, tokens: 0, cost: undefined }, given);
  }

  /** Add an event; tokens of one field and LM call that follow each other become one. */
  add(ms, name, data) {
    this.ms = ms;
    const last = this.events.at(-1);
    if (name === "token" || name === "reasoning") {
      const alike = last?.[1] === name && last[2].field === data.field && last[2].lm_call === data.lm_call;
      if (alike) {
        last[2] = { ...last[2], text: last[2].text + data.text, last: data.last, tokens: last[2].tokens + 1 };
        return;
      }
      this.events.push([ms, name, { ...data, tokens: 1 }]);
    } else if (name === "partial" && last?.[1] === name && last[2].field === data.field && last[2].lm_call === data.lm_call) {
      last[2] = data;
    } else if (this.events.length < MOST_EVENTS || ["prediction", "error"].includes(name)) {
      this.events.push([ms, name, data]);
    }
    if (name === "prediction") this.outputs = data.outputs;
  }

  /** The first words of what was asked. */
  get title() {
    return titleOf(this.inputs, 80);
  }
}

/** The first words among inputs, cut at `most` characters. */
export function titleOf(inputs, most) {
  const text = firstText(inputs) ?? JSON.stringify(inputs);
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

const isConversation = (value) => Array.isArray(value?.messages);

function firstText(value) {
  if (typeof value === "string") return value.trim() || null;
  if (value === null || typeof value !== "object") return null;
  const parts = Object.values(value);
  const turns = parts.filter(isConversation); // what was said before tells less than what is asked now
  for (const each of [...parts.filter((part) => !turns.includes(part)), ...turns]) {
    const found = firstText(each);
    if (found) return found;
  }
  return null;
}
