// The same run from elsewhere: as text for a terminal, for Python, TypeScript and Rust. Knows nothing of the page.

/** A request is {base, program, text, inputs, config, keyed}; `text` names the text output that streams, or is null. */
export const SNIPPETS = { curl, python, typescript, rust };

/** A header takes ASCII only. */
export function asciiJson(value) {
  return JSON.stringify(value).replace(/[^\x20-\x7e]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

const path = ({ base, program }) => `${base}/programs/${program}/predict/stream`;

function curl(request) {
  const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const lines = [`curl -N ${quote(path(request))}`, `-H ${quote("content-type: application/json")}`];
  if (request.keyed) lines.push('-H "authorization: Bearer $DSPY_LIVE_KEY"');
  if (request.config) lines.push(`-H ${quote(`x-config: ${asciiJson(request.config)}`)}`);
  return [...lines, `-d ${quote(JSON.stringify(request.inputs))}`].join(" \\\n  ");
}

function python({ base, program, text, inputs, config, keyed }) {
  const key = keyed ? ', api_key=os.environ["DSPY_LIVE_KEY"]' : "";
  const given = config ? `inputs, config=${literal(config)}` : "inputs";
  const stream = [
    `with client.stream(${given}) as run:`,
    `    for piece in run.text(${JSON.stringify(text)}):`,
    '        print(piece, end="", flush=True)',
    "    print()",
    "    print(dict(run.result()))",
  ];
  return [
    "# pip install dspy-live",
    ...(keyed ? ["import os", ""] : []),
    "from dspy_live.client import Client",
    "",
    `client = Client(${JSON.stringify(base)}, program=${JSON.stringify(program)}${key})`,
    `inputs = ${literal(inputs, "")}`,
    "",
    ...(text ? stream : [`print(dict(client.predict(${given})))`]),
  ].join("\n");
}

// A JSON value as Python writes it; with an indentation, one key of an object per line.
function literal(value, indent = null) {
  if (value === null) return "None";
  if (value === true || value === false) return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map((each) => literal(each)).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const pairs = Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${literal(each)}`);
  if (indent === null || pairs.length < 2) return `{${pairs.join(", ")}}`;
  return `{\n${pairs.map((pair) => `${indent}    ${pair},\n`).join("")}${indent}}`;
}

function typescript(request) {
  const { inputs, config, keyed, text } = request;
  const headers = ['"content-type": "application/json"'];
  if (keyed) headers.push("authorization: `Bearer ${process.env.DSPY_LIVE_KEY}`");
  if (config) headers.push(`"x-config": ${JSON.stringify(asciiJson(config))}`);
  const shown = text ? `if (name === "token" && data.field === ${JSON.stringify(text)}) process.stdout.write(data.text);` : "";
  return `const reply = await fetch(${JSON.stringify(path(request))}, {
  method: "POST",
  headers: { ${headers.join(", ")} },
  body: JSON.stringify(${JSON.stringify(inputs, null, 2).replaceAll("\n", "\n  ")}),
});
if (!reply.ok || !reply.body) throw new Error(await reply.text());

const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
let rest = "";
for (let part = await reader.read(); !part.done; part = await reader.read()) {
  const blocks = (rest + part.value).split("\\n\\n");
  rest = blocks.pop() ?? "";
  for (const block of blocks) {
    const name = /^event: (.*)$/m.exec(block)?.[1];
    const json = /^data: (.*)$/m.exec(block)?.[1];
    if (!json || json === "[DONE]") continue;
    const data = JSON.parse(json);
    ${[shown, 'if (name === "error") throw new Error(data.error.message);', 'if (name === "prediction") console.log("\\n", data.outputs);'].filter(Boolean).join("\n    ")}
  }
}`;
}

function rust({ base, program, text, inputs, config, keyed }) {
  const feature = base.startsWith("https:") ? "tls" : "remote";
  const key = keyed ? '.api_key(std::env::var("DSPY_LIVE_KEY").expect("DSPY_LIVE_KEY"))' : "";
  const options = Object.entries(config ?? {}).map(([name, value]) => `.config(${JSON.stringify(name)}, json!(${JSON.stringify(value)}))`);
  const shown = text
    ? `StreamEvent::Token(token) if token.field == ${JSON.stringify(text)} => print!("{}", token.text),\n            `
    : "";
  return `// cargo add dspy-live --no-default-features --features ${feature}
// cargo add serde_json && cargo add tokio --features macros,rt-multi-thread
use dspy_live::{Runtime, StreamEvent};
use serde_json::json;

#[tokio::main]
async fn main() -> dspy_live::Result<()> {
    let runtime = Runtime::remote(${JSON.stringify(base)})${key}.start().await?;
    let program = runtime.program(${JSON.stringify(program)}).await?;
    let inputs = json!(${JSON.stringify(inputs, null, 4).replaceAll("\n", "\n    ")});
    let mut stream = program.stream(inputs)${options.join("")}.start().await?;
    while let Some(event) = stream.recv().await? {
        match event {
            ${shown}StreamEvent::Prediction(prediction) => println!("\\n{prediction:?}"),
            _ => {}
        }
    }
    Ok(())
}`;
}
