// What AG-UI's client makes of the server: `node agui.mjs URL URL_OF_RETRIES` prints one JSON object.
import { HttpAgent } from "@ag-ui/client";

const [base, retries] = process.argv.slice(2);

function open(url, options = {}) {
  const agent = new HttpAgent({ url, ...options });
  const events = [];
  agent.subscribe({ onEvent: ({ event }) => void events.push(event) });
  return { agent, events };
}

const ask = (agent, content) => agent.addMessage({ id: crypto.randomUUID(), role: "user", content });
const program = (name) => `${base}/programs/${name}/agui`;

async function tried(agent) {
  try {
    return { result: (await agent.runAgent()).result, error: null };
  } catch (error) {
    return { result: null, error: error.message };
  }
}

async function agentRun() {
  const { agent, events } = open(program("agent"), { initialState: { kept: true }, threadId: "thread-1" });
  ask(agent, "Why? [sim reasoning=5 tps=500]");
  const { result, error } = await tried(agent);
  return { result, error, messages: agent.messages, state: agent.state, events };
}

async function talk() {
  const { agent } = open(program("chat"));
  for (const text of ["Een.", "Twee."]) {
    ask(agent, text);
    await agent.runAgent();
  }
  return agent.messages.map((message) => message.content);
}

async function image() {
  const { agent } = open(program("see"));
  const source = { type: "data", value: "iVBORw0KGgo=", mimeType: "image/png" };
  ask(agent, [{ type: "text", text: "What is it?" }, { type: "image", source }]);
  return tried(agent);
}

async function again() {
  const { agent } = open(`${retries}/agui`);
  ask(agent, "Why?");
  const { error } = await tried(agent);
  return { error, messages: agent.messages, state: agent.state };
}

async function failing(name, text) {
  const { agent, events } = open(program(name));
  ask(agent, text);
  const { error } = await tried(agent);
  return { error, types: events.map((event) => event.type), last: events.at(-1) };
}

async function ignored() {
  const { agent, events } = open(program("qa"));
  ask(agent, "Why?");
  await agent.runAgent({
    tools: [{ name: "show", description: "Show it.", parameters: {} }],
    context: [{ description: "place", value: "here" }],
  });
  return events.filter((event) => event.type === "CUSTOM").map((event) => event.value);
}

async function aborted() {
  const { agent } = open(program("qa"));
  let some = "";
  agent.subscribe({
    onTextMessageContentEvent: ({ event }) => {
      some += event.delta;
      agent.abortRun();
    },
  });
  ask(agent, "Why? [sim tps=50 length=2000]");
  await tried(agent);
  return some.length > 0;
}

const found = {
  agent: await agentRun(),
  talk: await talk(),
  image: await image(),
  again: await again(),
  before: await failing("fails", "x"),
  middle: await failing("qa", "x [sim fault=cut after=14 length=40]"),
  ignored: await ignored(),
  aborted: await aborted(),
};
console.log(JSON.stringify(found));
