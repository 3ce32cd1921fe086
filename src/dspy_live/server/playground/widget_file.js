// Images, sounds and files: chosen, dropped or pasted, with a preview.

import { button, changed, el } from "./dom.js";
import { unfit } from "./problem.js";

const format = (name) => name.split(".").pop().toLowerCase();

const KINDS = {
  image: {
    accept: "image/*",
    noun: "an image",
    build: ({ url }) => ({ url }),
    url: (value) => value.url,
    preview: (url, name) => (url.startsWith("data:") ? el("img", { src: url, alt: `Preview of ${name}` }) : ""), // nothing is loaded from elsewhere
    link: true,
  },
  audio: {
    accept: "audio/*",
    noun: "a sound",
    build: ({ url, name }) => ({ data: url.slice(url.indexOf(",") + 1), audio_format: format(name) }),
    url: (value) => `data:audio/${value.audio_format};base64,${value.data}`,
    preview: (url, name) => el("audio", { src: url, controls: true, "aria-label": `Preview of ${name}` }),
  },
  file: {
    accept: null,
    noun: "a file",
    build: ({ url, name }) => ({ file_data: url, filename: name }),
    url: (value) => value.file_data,
    preview: (url, name) => (url?.startsWith("data:image/") ? KINDS.image.preview(url, name) : el("span", { class: "page" })),
  },
};

export const imageWidget = (shape, about) => new FilePicker(KINDS.image, about);
export const audioWidget = (shape, about) => new FilePicker(KINDS.audio, about);
export const fileWidget = (shape, about) => new FilePicker(KINDS.file, about);

/** A picker. Files are read when they are chosen, so that a mistake shows at once and the run begins without a wait. */
class FilePicker {
  #kind;
  #about;
  #value;
  #label = "";

  constructor(kind, about) {
    this.#kind = kind;
    this.#about = about;
    const { id, name } = about;
    this.labelled = el("input", { id, type: "file", accept: kind.accept, class: "visually-hidden" });
    const hint = el("span", { class: "drop-hint" }, el("strong", {}, `Choose ${kind.noun}`), " or drop it here");
    this.zone = el("label", { class: "drop", for: id }, hint);
    this.shown = el("div", { class: "chosen" });
    this.problem = el("p", { class: "problem", role: "alert" });
    this.link = kind.link ? linkInput(id, name, (url) => this.#keep({ url, name: url, size: null })) : null;
    this.node = el("div", { class: "file" }, this.labelled, this.zone, this.shown, this.link, this.problem);
    this.labelled.addEventListener("change", (event) => {
      event.stopPropagation(); // the value changes once the file has been read
      this.#take(this.labelled.files[0]);
    });
    acceptDrops(this.node, (file) => this.#take(file));
  }

  read(mode) {
    const { name, required } = this.#about;
    if (this.#value !== undefined) return told(this.#value, mode, this.#kind);
    return required ? unfit(mode, `${name} is needed.`, this.labelled) : undefined;
  }

  write(given) {
    if (!given) return this.#clear();
    const url = this.#kind.url(given);
    this.#value = given;
    this.#label = given.filename ?? (url?.startsWith("data:") ? null : url) ?? this.#about.name;
    this.#show(url, null);
  }

  focus() {
    this.labelled.focus();
  }

  async #take(file) {
    if (!file) return;
    try {
      this.#keep({ url: await dataUrl(file), name: file.name || `pasted.${file.type.split("/")[1]}`, size: file.size });
    } catch (error) {
      this.problem.textContent = error.message;
    }
  }

  #keep(file) {
    this.#value = this.#kind.build(file);
    this.#label = file.name;
    this.#show(file.url, file.size);
    changed(this.node);
  }

  #show(url, size) {
    this.problem.textContent = "";
    this.#choosing(false);
    const name = el("span", { class: "file-name" }, this.#label);
    const about = el("span", { class: "about-file" }, name, size == null ? "" : ` ${bytes(size)}`);
    const remove = button("Remove", () => (this.#clear(), this.focus(), changed(this.node)), { class: "small" }, this.#label);
    this.shown.replaceChildren(this.#kind.preview(url, this.#label), about, remove);
  }

  #clear() {
    this.#value = undefined;
    this.labelled.value = "";
    this.shown.replaceChildren();
    this.#choosing(true);
  }

  #choosing(yes) {
    this.zone.hidden = !yes;
    if (this.link) this.link.hidden = !yes;
  }
}

function linkInput(id, name, take) {
  const input = el("input", { id: `${id}-url`, type: "url", placeholder: "or the address of one: https:…", "aria-label": `${name}: address` });
  input.addEventListener("change", () => input.value.trim() && take(input.value.trim()));
  return input;
}

function acceptDrops(node, take) {
  const over = (on) => node.toggleAttribute("data-over", on);
  node.addEventListener("dragover", (event) => (event.preventDefault(), over(true)));
  node.addEventListener("dragleave", (event) => node.contains(event.relatedTarget) || over(false));
  node.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    take(event.dataTransfer.files[0]);
  });
  node.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    take(event.clipboardData.files[0]);
  });
}

// A draft is kept and a snippet is shown: neither has a file's content, only an address has a place in them.
function told(value, mode, kind) {
  const url = kind.url(value);
  if (mode === "send" || !url?.startsWith("data:")) return value;
  if (mode === "draft") return undefined;
  const short = (text) => (text.length > 60 ? `${text.slice(0, text.indexOf(",") + 1)}…` : text);
  return Object.fromEntries(Object.entries(value).map(([key, text]) => [key, typeof text === "string" ? short(text) : text]));
}

function bytes(size) {
  if (size < 1000) return `${size} B`;
  return size < 1e6 ? `${(size / 1000).toFixed(1)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

function dataUrl(file) {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => fail(new Error(`${file.name} can't be read.`));
    reader.readAsDataURL(file);
  });
}
