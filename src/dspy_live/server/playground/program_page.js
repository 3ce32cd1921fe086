// One program on the page: its form, its draft, its examples, and the chat of one with a history.

import { button, byId } from "./dom.js";
import { Conversation, hasHistory } from "./conversation.js";
import { Form } from "./form.js";
import { keep, kept } from "./kept.js";
import { readOptions, writeOptions } from "./options.js";
import { titleOf } from "./run_record.js";
import { remember } from "./share.js";

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
    byId("about").textContent = program.description;
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

  /** A run has begun: in a chat its words join the conversation. */
  asked(inputs) {
    if (this.chats) this.conversation.show(inputs[this.conversation.field]?.messages ?? [], inputs);
  }

  /** A run has ended well: in a chat it becomes a turn, and the form is ready for the next one. */
  answered(inputs, outputs) {
    if (!this.chats) return;
    const before = inputs[this.conversation.field]?.messages ?? [];
    const messages = [...before, this.conversation.turn(inputs, outputs)];
    const rest = Object.fromEntries(Object.entries(inputs).filter(([, value]) => typeof value !== "string"));
    this.form = new Form(byId("inputs"), this.program);
    this.form.write({ ...rest, [this.conversation.field]: { messages } });
    this.#hideHistory();
    this.#keepDraft();
    this.form.focus();
  }

  #beginAnew() {
    this.history.write({ messages: [] });
    this.conversation.show([]);
    this.view.program(this.program);
    this.#keepDraft();
    this.form.focus();
  }

  // In a chat the answers stand above the form, in the order of reading and of the keyboard.
  #arrange() {
    byId("modes").hidden = this.conversation === null;
    byId("anew").hidden = !this.chats;
    byId("page").dataset.mode = this.chats ? "chat" : "form";
    byId("ask-title").textContent = this.chats ? "Your turn" : "Inputs";
    byId("answer-title").textContent = this.chats ? "Conversation" : "Outputs";
    byId("run").firstChild.data = this.chats ? "Send " : "Run ";
    byId("run").querySelector("kbd").textContent = this.chats ? "⏎" : "Ctrl ⏎";
    byId("nothing").textContent = this.chats ? "Nothing was said yet." : "Nothing has run yet. Fill in the inputs and press Run.";
    if (this.chats) byId("answer").after(byId("ask"));
    else byId("answer").before(byId("ask"));
    byId("conversation").hidden = !this.chats;
    byId("steps").open = !this.chats;
    if (this.chats) this.conversation.show(this.history.read().messages);
    this.#hideHistory();
  }

  #hideHistory() {
    const node = this.conversation && this.history.node.closest(".field");
    if (node) node.hidden = this.chats;
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
