// What MCP's clients for Node make of the server: `node mcp_client.mjs URL` prints one JSON object.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Client as OldClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as OldTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const url = new URL(process.argv[2] + "/mcp");
const about = { name: "test", version: "1" };
const SLOW = "Why? [sim tps=50 length=2000]";

async function tried(client, call) {
  const tools = (await client.listTools()).tools.map((tool) => tool.name);
  const notes = [];
  const onprogress = (note) => notes.push([note.progress, note.message]);
  const agent = await call("agent", { question: "Why? [sim tps=500]" }, { onprogress });
  const fails = await call("fails", { question: "x" }, {});
  const abort = new AbortController();
  let aborted = "";
  try {
    await call("qa", { question: SLOW }, { signal: abort.signal, onprogress: () => abort.abort("no") });
  } catch (error) {
    aborted = error.constructor.name;
  }
  const after = await call("qa", { question: "Still there?" }, {});
  return { tools, notes, agent, fails, aborted, after: after.isError ?? false };
}

const found = {};
for (const mode of ["auto", "legacy"]) {
  const client = new Client(about, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(url));
  found[mode] = await tried(client, (name, args, options) => client.callTool({ name, arguments: args }, options));
  found[mode].version = client.getNegotiatedProtocolVersion?.() ?? null;
  await client.close();
}
const old = new OldClient(about);
const transport = new OldTransport(url);
await old.connect(transport);
found.old = await tried(old, (name, args, options) => old.callTool({ name, arguments: args }, undefined, options));
found.old.version = transport.protocolVersion ?? null;
await old.close();
console.log(JSON.stringify(found));
