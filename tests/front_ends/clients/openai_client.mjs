// What OpenAI's client for Node makes of the server: `node openai_client.mjs URL` prints one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "none", maxRetries: 0 });

async function whole() {
  const response = await client.responses.create({ model: "qa", input: "Why?" });
  return { text: response.output_text, status: response.status, usage: response.usage };
}

async function streamed() {
  const stream = client.responses.stream({ model: "agent", input: "Why? [sim reasoning=5 tps=500]" });
  const types = [];
  let joined = "";
  for await (const event of stream) {
    types.push(event.type);
    if (event.type === "response.output_text.delta") joined += event.delta;
  }
  const final = await stream.finalResponse();
  return { types, joined, text: final.output_text, output: final.output.map((item) => item.type) };
}

async function follows() {
  const first = await client.responses.create({ model: "chat", input: "First." });
  const second = await client.responses.create({ model: "chat", input: "Second.", previous_response_id: first.id });
  return { first: first.output_text, previous: second.previous_response_id === first.id };
}

async function errors() {
  const found = {};
  const asks = {
    unknown: { model: "gpt", input: "x" },
    previous: { model: "chat", input: "x", previous_response_id: "resp_no" },
    fails: { model: "fails", input: "x" },
  };
  for (const [name, body] of Object.entries(asks)) {
    try {
      await client.responses.create(body);
    } catch (error) {
      found[name] = { class: error.constructor.name, code: error.code, param: error.param, text: error.message };
    }
  }
  return found;
}

async function leaves() {
  const stream = await client.responses.create({ model: "qa", input: "Why? [sim tps=50 length=2000]", stream: true });
  let seen = 0;
  for await (const event of stream) {
    if (event.type === "response.output_text.delta" && ++seen === 3) break;
  }
  return seen;
}

const found = {};
for (const scenario of [whole, streamed, follows, errors, leaves]) found[scenario.name] = await scenario();
console.log(JSON.stringify(found));
