// What a JSON Schema asks for: the one kind of control that fits, and the name of the type as a person would say it.

const ORDER = { string: "text", integer: "integer", number: "number", boolean: "boolean" };

/** Follow references into the field's own definitions; `root` is the schema that has `$defs`. */
export function resolve(schema, root) {
  let found = schema ?? {};
  for (let hops = 0; found.$ref && hops < 20; hops += 1) {
    const { $ref, ...beside } = found;
    found = { ...(root.$defs?.[$ref.split("/").pop()] ?? {}), ...beside };
  }
  if (found.allOf?.length === 1) found = { ...resolve(found.allOf[0], root), ...found, allOf: undefined };
  return found;
}

/** Return {kind, optional, schema, root} and what the kind needs: `values`, `variants`, `item`, `items`, `fields`, `value`. */
export function shapeOf(schema, root = schema ?? {}) {
  const found = resolve(schema, root);
  const kinds = found.anyOf ?? found.oneOf;
  if (kinds) {
    const some = kinds.filter((each) => resolve(each, root).type !== "null");
    const optional = some.length < kinds.length;
    const beside = { description: found.description, default: found.default };
    if (some.length === 1) return { ...shapeOf({ ...some[0], ...defined(beside) }, root), optional };
    return { kind: "union", optional, schema: found, root, variants: some };
  }
  return { optional: false, schema: found, root, ...plain(found) };
}

function plain(found) {
  if ("const" in found) return { kind: "choice", values: [found.const] };
  if (found.enum) return { kind: "choice", values: found.enum };
  const special = specialOf(found);
  if (special) return { kind: special };
  if (found.type === "string" && ["date", "time", "date-time"].includes(found.format)) return { kind: found.format };
  if (ORDER[found.type]) return { kind: ORDER[found.type] };
  if (found.type === "array" && found.prefixItems) return { kind: "tuple", items: found.prefixItems };
  if (found.type === "array" && found.items) return { kind: "list", item: found.items };
  if (found.type === "object" && found.properties) return { kind: "object", fields: fieldsOf(found) };
  if (found.type === "object" && found.additionalProperties?.constructor === Object) {
    return { kind: "map", value: found.additionalProperties };
  }
  return { kind: "json" };
}

// DSPy's own types, which pydantic describes as objects; a class of the user's that is only called so has other fields.
const SPECIAL = { Image: ["url"], Audio: ["audio_format", "data"], History: ["messages"], File: ["file_data", "file_id", "filename"] };

function specialOf({ title, properties }) {
  const names = SPECIAL[title];
  if (!names || !properties) return null;
  return Object.keys(properties).sort().join() === names.join() ? title.toLowerCase() : null;
}

function fieldsOf({ properties, required = [] }) {
  return Object.entries(properties).map(([name, schema]) => ({
    name,
    schema,
    description: schema.description ?? "",
    required: required.includes(name),
  }));
}

const defined = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

const NAMES = { text: "str", integer: "int", number: "float", boolean: "bool", json: "any", history: "dspy.History" };

/** The type of a shape in the words of its program: "list[City]", "int or str", "'a' or 'b'". */
export function nameOf(shape) {
  const inner = (schema) => nameOf(shapeOf(schema, shape.root));
  switch (shape.kind) {
    case "union":
      return shape.variants.map(inner).join(" or ");
    case "choice":
      return shape.values.length > 3 ? (shape.schema.title ?? `one of ${shape.values.length}`) : shape.values.map(literal).join(" or ");
    case "list":
      return `list[${inner(shape.item)}]`;
    case "tuple":
      return `tuple[${shape.items.map(inner).join(", ")}]`;
    case "map":
      return `dict[str, ${inner(shape.value)}]`;
    case "object":
      return shape.schema.title ?? "object";
    case "image":
    case "audio":
    case "file":
      return `dspy.${shape.schema.title}`;
    default:
      return NAMES[shape.kind] ?? shape.kind;
  }
}

const literal = (value) => (typeof value === "string" ? `'${value}'` : JSON.stringify(value));

/** The type that is shown beside a field's name, and beside "optional" where it may be left out. */
export function typeLabel(field) {
  const shape = shapeOf(field.schema);
  const bare = ["json", "object"].includes(shape.kind) || (shape.kind === "list" && !shape.item);
  return bare && field.type ? withoutNone(field.type) : nameOf(shape);
}

// "Union[City, NoneType]" → "City"; "Union[int, str]" → "int or str".
function withoutNone(type) {
  const inside = /^(?:Union|Optional)\[(.*)\]$/.exec(type)?.[1];
  if (!inside) return type;
  const parts = splitTop(inside).filter((part) => part !== "NoneType" && part !== "None");
  return parts.join(" or ");
}

function splitTop(text) {
  const parts = [""];
  let depth = 0;
  for (const c of text) {
    if (c === "[") depth += 1;
    if (c === "]") depth -= 1;
    if (c === "," && depth === 0) parts.push("");
    else parts[parts.length - 1] += c;
  }
  return parts.map((part) => part.trim());
}
