// The playground: finds the programs and wires the parts of the page.

import { Failure, getJson } from "./api.js";
import { compareRuns } from "./compare.js";
import { byId, el } from "./dom.js";
import { bringIntoView, followEnd, keepInView } from "./follow.js";
import { askKey, withKey } from "./key.js";
import { watchServer } from "./live.js";
import { Problem } from "./problem.js";
import { ProgramPage } from "./program_page.js";
import { Runner } from "./runner.js";
import { RunsPanel } from "./runs_panel.js";
import { RunView } from "./run_view.js";
import { askedFor } from "./share.js";
import { setUpSharing, showLink } from "./share_dialog.js";
import { setUpSnippets, showSnippets } from "./snippet_dialog.js";
import { hideStartProblem, showStartProblem } from "./start_problem.js";
import { setUpTheme } from "./theme.js";

const view = new RunView();
const page = new ProgramPage(view);
const runs = new RunsPanel(byId("runs"), { show: showPast, compare: compareRuns });
const runner = new Runner({
  page,
  view,
  began: () => (showNote(null), page.chats ? follow() : bringIntoView(byId("answer")), setTimeout(look, 100)),
  ended: (record) => {
    runs.add(record);
    runs.mark(record);
    look();
  },
});
let programs = [];
let past = null;
let look = () => {};

function showNote(record) {
  past = record;
  byId("past-note").hidden = !record;
  runs.mark(record);
}

function choose(name, given = null) {
  const program = programs.find((each) => each.name === name) ?? programs[0];
  runner.cancel();
  showNote(null);
  byId("program").value = program.name;
  page.show(program, given);
}

function showPast(record) {
  if (record.program !== page.program.name) choose(record.program);
  runner.cancel();
  page.asked(record.inputs);
  view.replay(record);
  showNote(record);
  byId("answer").scrollIntoView({ block: "nearest" });
}

function open() {
  const { program, inputs, config } = askedFor();
  choose(program, inputs && { inputs, config });
  page.form.focus();
}

function name({ title, simulated, programs: found }) {
  programs = found;
  document.title = byId("title").textContent = title;
  byId("simulated").hidden = !simulated;
  byId("program").replaceChildren(...programs.map((each) => el("option", {}, each.name)));
  byId("program-pick").hidden = programs.length < 2;
  byId("program-name").textContent = programs.length < 2 && programs[0].name !== title ? programs[0].name : "";
}

async function load() {
  let about;
  try {
    about = await withKey(() => getJson("programs"));
    if (!about.programs?.length) throw new Failure({ message: "no program is open to this key" }, 403);
  } catch (error) {
    view.state("failed", "Not started");
    showStartProblem(error, load);
    return;
  }
  hideStartProblem();
  name(about);
  open();
  look = watchServer();
}

async function tell(show) {
  try {
    const { inputs, config } = await page.told(show === showLink ? "draft" : "snippet");
    const text = page.program.outputs.filter((field) => field.type === "str").at(-1)?.name ?? null;
    const left = Object.entries(inputs).filter(([, value]) => /;base64,…/.test(JSON.stringify(value)));
    show({ program: page.program.name, text, inputs, config }, left.map(([name]) => name));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
}

// In a chat Enter alone sends, and Shift Enter begins a line; not while an input method is composing a word.
function sendsChat({ key, shiftKey, isComposing, target }) {
  return key === "Enter" && !shiftKey && !isComposing && page.chats && target.matches("#inputs textarea:not([data-json])");
}

byId("start-late").remove();
setUpTheme();
setUpSnippets();
setUpSharing();
keepInView(byId("answer"), byId("strip"));
const follow = followEnd(byId("answer"), byId("ask"), () => page.chats);
byId("form").addEventListener("submit", (event) => (event.preventDefault(), runner.start()));
byId("cancel").addEventListener("click", () => runner.cancel());
byId("clear").addEventListener("click", () => page.fill({}, null));
byId("take-back").addEventListener("click", () => page.takeBack());
byId("again").addEventListener("click", () => (page.takeBack(), runner.start({ anew: true })));
byId("key-button").addEventListener("click", () => askKey());
byId("program").addEventListener("change", () => choose(byId("program").value));
byId("snippets").addEventListener("click", () => tell(showSnippets));
byId("share").addEventListener("click", () => tell(showLink));
byId("use-inputs").addEventListener("click", () => page.fill(past.inputs, past.config));
addEventListener("hashchange", open);
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) runner.start();
  else if (sendsChat(event)) (event.preventDefault(), runner.start());
  if (event.key === "Escape") runner.cancel();
});

load();
