// A request of "Try it" as a line for a terminal. Knows nothing of the page.

const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Return the curl command; the key stays out of it, since commands are kept in a history. */
export function curlOf(address, { method, headers, body }) {
  const given = Object.entries(headers).filter(([name]) => name.toLowerCase() !== "authorization");
  const keyed = given.length < Object.keys(headers).length;
  const lines = [`curl -sN ${method === "GET" ? "" : `-X ${method} `}${quote(address)}`];
  for (const [name, value] of given) lines.push(`-H ${quote(`${name}: ${value}`)}`);
  if (keyed) lines.push('-H "authorization: Bearer $DSPY_LIVE_KEY"');
  if (body !== undefined) lines.push(`-d ${quote(body)}`);
  return lines.join(" \\\n  ");
}
