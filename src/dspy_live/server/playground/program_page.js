// One program on the page: its form, its draft, its examples, and the chat of one with a history.

import { button, byId } from "./dom.js";
import { Conversation, hasHistory } from "./conversation.js";
import { Form } from "./form.js";
import { keep, kept } from "./kept.js";
import { readOptions, writeOptions } from "./options.js";
import { titleOf } from "./run_record.js";
import { remember } from "./share.js";

// What DSPy says of a signature without instructions tells only what the form shows.
const aboutOf = ({ description }) => (/^Given the fields `.*, produce the fields `/.test(description) ? "" : description);

export class ProgramPage {
  program;
  form;
  conversation = null;

  constructor(view) {
    this.view = view;
    byId("form").addEventListener("input", () => this.#keepDraft());
    byId("modes").addEventListener("change", () => this.#arrange());
    byId("anew").addEventListener("click", () => this.#beginAnew());
  }

  get chats() {
    return this.conversation !== null && document.querySelector("#modes input:checked").value === "chat";
  }

  get history() {
    return this.form.widget(this.conversation.field);
  }

  /** Show a program with given inputs, or with those that were last written for it in this tab. */
  show(program, given = null) {
    this.program = program;
    byId("about").textContent = aboutOf(program);
    this.form = new Form(byId("inputs"), program);
    this.conversation = hasHistory(program) ? new Conversation(byId("conversation"), program) : null;
    const draft = given ?? kept(`draft ${program.name}`);
    writeOptions(draft?.config ?? null);
    if (draft?.inputs) this.form.write(draft.inputs);
    this.view.program(program);
    this.#showExamples();
    this.#arrange();
    remember(program.name);
    this.#keepDraft();
  }

  /** Put the inputs of a past run, an example or a link into the form. */
  fill(inputs, config = undefined) {
    this.form = new Form(byId("inputs"), this.program);
    this.form.write(inputs);
    if (config !== undefined) writeOptions(config);
    this.#arrange();
    this.#keepDraft();
    this.form.focus();
  }

  /** A run is shown: in a chat its words stand at the conversation's end. */
  asked(inputs) {
    if (!this.chats) return;
    this.conversation.show(inputs[this.conversation.field]?.messages ?? [], inputs);
    byId("turn-actions").hidden = true;
  }

  /** A run has begun: in a chat its words go from the form into the conversation. */
  sent(inputs) {
    this.asked(inputs);
    if (!this.chats) return;
    this.form.clearTexts();
    this.form.focus();
  }

  /** A run has ended well: in a chat it becomes a turn. What was written meanwhile stays. */
  answered(inputs, outputs) {
    if (!this.chats) return;
    const before = inputs[this.conversation.field]?.messages ?? [];
    this.#converse([...before, this.conversation.turn(inputs, outputs)]);
    if (byId("form").contains(document.activeElement) || document.activeElement === document.body) this.form.focus();
  }

  /** A run has failed: in a chat its words come back, to be changed or sent again, unless others were written. */
  async failed(inputs) {
    if (!this.chats || !(await this.form.saysNothing())) return;
    this.form.write(Object.fromEntries(Object.entries(inputs).filter(([, value]) => typeof value === "string")));
    this.#keepDraft();
  }

  /** Take the last turn out of the conversation; what was asked stands in the form again. */
  takeBack() {
    const { messages } = this.history.read();
    const last = messages.pop();
    this.#converse(messages);
    this.form.write(Object.fromEntries(this.conversation.sides.user.map((name) => [name, last[name]])));
    this.#showTurns();
    this.form.focus();
  }

  #beginAnew() {
    this.#converse([]);
    this.#showTurns();
    this.form.focus();
  }

  #converse(messages) {
    this.history.write({ messages });
    byId("turn-actions").hidden = !messages.length;
    this.#keepDraft();
  }

  #showTurns() {
    this.view.program(this.program);
    this.conversation.show(this.history.read().messages);
  }

  // In a chat the answers stand above the form, in the order of reading and of the keyboard.
  #arrange() {
    byId("modes").hidden = this.conversation === null;
    byId("anew").hidden = !this.chats;
    byId("page").dataset.mode = this.chats ? "chat" : "form";
    byId("clear").hidden = this.chats;
    byId("ask-title").textContent = this.chats ? "Your turn" : "Inputs";
    byId("answer-title").textContent = this.chats ? "Conversation" : "Outputs";
    byId("run").firstChild.data = this.chats ? "Send " : "Run ";
    byId("run").querySelector("kbd").textContent = this.chats ? "⏎" : "Ctrl ⏎";
    byId("nothing").textContent = this.chats ? this.#firstWords() : "Nothing has run yet. Fill in the inputs and press Run.";
    if (this.chats) byId("answer").after(byId("ask"));
    else byId("answer").before(byId("ask"));
    byId("conversation").hidden = !this.chats;
    byId("steps").open = !this.chats;
    const turns = this.chats ? this.history.read().messages : [];
    if (this.chats) this.conversation.show(turns);
    byId("turn-actions").hidden = !turns.length;
    if (this.conversation) this.history.node.closest(".field").hidden = this.chats;
    this.form.hintInOnly(this.chats ? "Write a message" : null);
  }

  #firstWords() {
    return [aboutOf(this.program), "Write the first message below. Every answer knows what was said before it."].filter(Boolean).join("\n\n");
  }

  #showExamples() {
    const examples = this.program.examples ?? [];
    byId("examples").hidden = !examples.length;
    byId("examples").replaceChildren(
      ...examples.map(({ inputs }) => button(titleOf(inputs, 48), () => this.fill(inputs), { class: "small example" })),
    );
  }

  async #keepDraft() {
    let config = null;
    try {
      config = JSON.parse(byId("config").value || "null");
    } catch {
      // half written: not kept
    }
    keep(`draft ${this.program.name}`, { inputs: await this.form.read("draft"), config });
  }

  /** The inputs for a snippet or a link, without the content of files. */
  async told(mode) {
    return { inputs: await this.form.read(mode), config: readOptions({ fresh: false }) };
  }
}
