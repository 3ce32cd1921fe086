// From a shape to its control.
//
// A widget is {node, labelled, read(mode), write(value), focus()}. `labelled` is the element that a <label> may point to,
// or null where the widget is a group of controls; `extra`, if any, stands beside the label. `read` returns undefined for what was left empty; in the mode "send" it
// throws a Problem for what does not fit, in "draft" and "snippet" it never throws and leaves the content of files out; a snippet has "…" for a needed text.
// `write(undefined)` empties it.

import { audioWidget, fileWidget, imageWidget } from "./widget_file.js";
import { historyWidget } from "./widget_history.js";
import { jsonWidget, withJson } from "./widget_json.js";
import { listWidget, mapWidget, tupleWidget } from "./widget_list.js";
import { objectWidget, unionWidget } from "./widget_object.js";
import { choiceWidget, dateWidget, flagWidget, numberWidget, textWidget } from "./widget_simple.js";

const MAKERS = {
  text: textWidget,
  integer: numberWidget,
  number: numberWidget,
  boolean: flagWidget,
  choice: choiceWidget,
  date: dateWidget,
  time: dateWidget,
  "date-time": textWidget,
  image: imageWidget,
  audio: audioWidget,
  file: fileWidget,
  history: historyWidget,
  list: listWidget,
  map: mapWidget,
  tuple: tupleWidget,
  object: objectWidget,
  union: unionWidget,
  json: jsonWidget,
};

const GROUPS = new Set(["list", "map", "tuple", "object", "union"]);

/** Make the control of a shape. `about` is {id, name, required, field, top}; groups can be written as JSON too. */
export function makeWidget(shape, about) {
  const widget = MAKERS[shape.kind](shape, about, makeWidget);
  return about.top && GROUPS.has(shape.kind) ? withJson(widget, about) : widget;
}
