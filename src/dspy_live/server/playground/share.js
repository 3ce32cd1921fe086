// What the address bar keeps: the program, and in a shared link the inputs too. It stands after the #, which is never
// sent to a server.

/** The address of this page with a program and its inputs. */
export function linkTo(program, inputs, config) {
  const address = new URL(location.href);
  const parts = new URLSearchParams({ program });
  if (inputs) parts.set("inputs", encode(inputs));
  if (config) parts.set("config", encode(config));
  address.hash = parts;
  return address.href;
}

/** What the address asks for: {program, inputs, config}, each null where it says nothing, or nothing that can be read. */
export function askedFor() {
  const parts = new URLSearchParams(location.hash.slice(1));
  return { program: parts.get("program"), inputs: decode(parts.get("inputs")), config: decode(parts.get("config")) };
}

/** Keep the program in the address, so that a reload shows it again. */
export function remember(program) {
  history.replaceState(null, "", linkTo(program));
}

function encode(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function decode(text) {
  if (!text) return null;
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const value = JSON.parse(new TextDecoder().decode(bytes));
    return value?.constructor === Object ? value : null;
  } catch {
    return null;
  }
}
