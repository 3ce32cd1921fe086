// Runs the program that the page shows, and tells the view and the list of runs.

import { run } from "./api.js";
import { byId } from "./dom.js";
import { askKey } from "./key.js";
import { readOptions, refuseOption } from "./options.js";
import { Problem } from "./problem.js";
import { RunRecord } from "./run_record.js";

export class Runner {
  #current = null;

  /** `page` is the program's, `view` shows the run, `ended` is told of the record of each run that has ended. */
  constructor({ page, view, began, ended }) {
    Object.assign(this, { page, view, began, ended });
  }

  cancel() {
    this.#current?.abort();
  }

  /** Run with the inputs of the form; `anew` goes past the cache. */
  async start({ anew = false } = {}) {
    if (this.#current) return;
    const asked = await this.#asked(anew);
    if (!asked || this.#current) return;
    this.#current = new AbortController();
    this.#busy(true);
    this.began();
    this.view.begin();
    this.view.state("running", "Waiting");
    this.page.sent(asked.inputs);
    const record = await this.#follow(asked);
    this.#current = null;
    this.#busy(false);
    if (record.state === "done") this.page.answered(asked.inputs, record.outputs);
    else this.page.failed(asked.told);
    this.ended(record);
  }

  async #asked(anew) {
    try {
      return { inputs: await this.page.form.read(), config: readOptions({ anew }), told: await this.page.form.read("draft") };
    } catch (error) {
      if (error instanceof Problem) return null;
      throw error;
    }
  }

  async #follow({ inputs, config, told }) {
    const { program } = this.page;
    const record = new RunRecord({ program: program.name, inputs: told, config, at: Date.now() });
    const began = performance.now();
    const now = () => performance.now() - began;
    const timer = setInterval(() => this.view.tick(now()), 200);
    let over = false;
    try {
      for await (const { event, data } of run(`programs/${program.name}/predict/stream`, inputs, config, this.#current.signal)) {
        over ||= ["prediction", "error"].includes(event);
        record.add(now(), event, data);
        this.view.event(now(), event, data);
      }
      if (!over) throw new Error("the connection broke before the run's end");
    } catch (error) {
      if (error.name === "AbortError") this.view.state("failed", "Cancelled");
      else this.#refused(error);
    } finally {
      clearInterval(timer);
      record.ms = now();
      this.view.end(record.ms);
    }
    const { meters } = this.view;
    const state = byId("state");
    const cost = meters.cached || meters.usage?.cost != null ? meters.cost : undefined;
    return Object.assign(record, { state: state.dataset.state, text: state.textContent, tokens: meters.tokens, cost });
  }

  #refused(error) {
    this.view.state("failed", "Failed");
    if (error.status === 401) askKey(error.message);
    const many = error.errors?.length ? error.errors : [{ field: error.field, message: error.message }];
    const told = many.filter(({ field, message }, i) => field && this.#atField(field, message, i === 0));
    if (told.length < many.length) this.view.fail(error.status ? error.message : unreachable(error));
  }

  #atField(field, message, first) {
    if (field === "config" || field.startsWith("config.")) {
      refuseOption(message);
      return true;
    }
    return this.page.form.problem(field, message, null, first);
  }

  #busy(on) {
    byId("cancel").disabled = !on;
    byId("run").disabled = on;
    byId("outputs").setAttribute("aria-busy", String(on));
  }
}

const unreachable = (error) => (error instanceof TypeError ? "The server does not answer. Has it been stopped?" : error.message);
