// What the Vercel AI SDK makes of the server: `node ai_sdk.mjs URL URL_OF_RETRIES` prints one JSON object.
import { AbstractChat, DefaultChatTransport } from "ai";

class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => (this.messages = [...this.messages, message]);
  popMessage = () => (this.messages = this.messages.slice(0, -1));
  replaceMessage = (index, message) => (this.messages = this.messages.with(index, message));
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {
  constructor(options) {
    super({ ...options, state: new State() });
  }
}

const base = process.argv[2];

function open(program, options = {}, transport = {}) {
  const data = [];
  const errors = [];
  const chat = new Chat({
    id: `chat-${program}-${Math.random()}`,
    transport: new DefaultChatTransport({ api: `${base}/programs/${program}/ui/chat`, ...transport }),
    onData: (part) => data.push(part),
    onError: (error) => errors.push(error.message),
    ...options,
  });
  return { chat, data, errors };
}

const textOf = (message) => message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");

async function agent() {
  const { chat, data, errors } = open("agent");
  await chat.sendMessage({ text: "Why? [sim reasoning=5 tps=500]" });
  return { parts: chat.lastMessage.parts, metadata: chat.lastMessage.metadata, data, errors, status: chat.status };
}

async function talk() {
  const { chat } = open("chat");
  await chat.sendMessage({ text: "Un." });
  const first = textOf(chat.lastMessage);
  await chat.sendMessage({ text: "Deux." });
  const before = textOf(chat.lastMessage);
  await chat.regenerate();
  return { first, before, after: textOf(chat.lastMessage), messages: chat.messages.length };
}

async function session() {
  const prepareSendMessagesRequest = ({ id, messages }) => ({ body: { id, message: messages.at(-1) } });
  const { chat } = open("chat", { id: "ui-chat" }, { prepareSendMessagesRequest });
  for (const text of ["Uno.", "Dos."]) await chat.sendMessage({ text });
  return chat.messages.map(textOf);
}

async function resumed() {
  const { chat, errors } = open("qa");
  await chat.resumeStream();
  return { status: chat.status, errors };
}

async function image() {
  const { chat, errors } = open("see");
  const url = "data:image/png;base64,iVBORw0KGgo=";
  await chat.sendMessage({ text: "What is it?", files: [{ type: "file", mediaType: "image/png", url }] });
  return { text: textOf(chat.lastMessage), errors };
}

async function again() {
  const { chat, errors } = open("qa", {}, { api: `${process.argv[3]}/ui/chat` });
  await chat.sendMessage({ text: "Why?" });
  return { parts: chat.lastMessage.parts, errors };
}

async function failing(program, text) {
  const { chat, errors } = open(program);
  await chat.sendMessage({ text });
  return { errors, status: chat.status, last: chat.lastMessage };
}

async function stopped() {
  const { chat, errors } = open("qa");
  const asked = chat.sendMessage({ text: "Why? [sim tps=50 length=2000]" });
  while (!(chat.lastMessage?.role === "assistant" && textOf(chat.lastMessage))) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await chat.stop();
  await asked;
  return { status: chat.status, errors, some: textOf(chat.lastMessage).length > 0 };
}

const found = {
  agent: await agent(),
  talk: await talk(),
  session: await session(),
  resumed: await resumed(),
  image: await image(),
  again: await again(),
  before: await failing("fails", "x"),
  middle: await failing("qa", "x [sim fault=cut after=14 length=40]"),
  stopped: await stopped(),
};
console.log(JSON.stringify(found));
