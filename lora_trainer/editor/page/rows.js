// A row for each key: its words, its field, and what there is to say about its value.

import { isLongText, makeField } from "./inputs.js";

export const SHARED = -1;
const SHORT = 24; // characters that a button may repeat

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function button(text, act) {
  const made = make("button", "", text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

export function pathOf(stage, name) {
  return stage === SHARED ? [name] : ["stages", stage, name];
}

// `show` gets what the preset says of the key; `key.kind` is "unknown" or "other" where no trainer's form has it.
export class Row {
  constructor(key, group, raw, act) {
    this.key = key;
    this.group = group;
    this.act = act;
    this.stage = SHARED;
    this.words = [key.name, key.about, key.legal, group, ...key.former].join(" ").toLowerCase();
    this.element = make("div", "key");
    this.element.id = `key-${key.name}`;
    this.field = makeField(key, `field-${key.name}`, isLongText(key, raw), (json) => this._typed(json));
    this._build();
  }

  _build() {
    const { key, field } = this;
    const id = `field-${key.name}`;
    field.element.id = id;
    const head = make("div", "words");
    const label = make("label", "name");
    label.htmlFor = id;
    label.append(make("code", "", key.name));
    this.tags = make("span", "tags");
    const title = make("p", "title");
    title.append(label, this.tags);
    const about = make("p", "story", key.about);
    about.id = `${id}-about`;
    head.append(title, about);
    if (key.effect) head.append(make("p", "hint", key.effect));
    const side = make("div", "value");
    this.said = make("div", "said");
    this.said.id = `${id}-said`;
    this.said.setAttribute("aria-live", "polite");
    this.facts = make("p", "hint facts");
    side.append(field.around ?? field.element, this.said, this.facts);
    this.element.append(head, side);
    field.element.setAttribute("aria-describedby", `${about.id} ${this.said.id}`);
  }

  _typed(json) {
    const path = pathOf(this.stage, this.key.name);
    if (json === null) {
      if (this.written) this.act.change({ do: "remove", path });
      return;
    }
    this.act.type({ do: "put", path, written: json });
  }

  show(state) {
    this.stage = state.stage;
    this.written = state.written;
    const raw = (state.written ?? state.inherited)?.raw;
    this.isSet = Boolean(state.written);
    this.isChanged = this.isSet && !state.written.default && !this.key.kind;
    this.problems = state.problems;
    this.remarks = state.remarks;
    if (!state.isUntaken) this.field.show(raw, this._instead()); // else what was typed waits to become JSON
    this.field.element.setAttribute("aria-invalid", String(state.problems.length > 0));
    this.element.classList.toggle("changed", this.isChanged && !this.key.required);
    this.element.classList.toggle("wrong", state.problems.length > 0);
    this._tag(state);
    this._say(state);
    this._tellFacts(state);
  }

  _instead() {
    const { key } = this;
    if (key.default_shown !== "") return `default ${key.default_shown}`;
    return key.example ? `for example ${key.example}` : "";
  }

  _tag(state) {
    const { key } = this;
    const tags = [];
    if (key.required) tags.push(["required", "The preset needs it."]);
    if (this.isChanged && !key.required) tags.push(["not the default", "The file gives another value."]);
    if (state.inherited && !state.written) tags.push(["shared", "From the keys that all stages share."]);
    if (state.unsaved) tags.push(["unsaved", "Changed since the file was saved."]);
    if (key.may_change) tags.push(["may change", "A run may be continued with another value."]);
    this.tags.replaceChildren(
      ...tags.map(([word, title]) => Object.assign(make("span", `tag ${word.replaceAll(" ", "-")}`, word), { title })),
    );
  }

  _say(state) {
    const lines = [
      ...state.problems.map((each) => ["problem", each.text]),
      ...state.elsewhere.map((each) => ["remark", `Here it is ${each.value}, given by ${each.by}.`]),
      ...state.remarks.map((each) => ["remark", each.text]),
    ];
    const signature = JSON.stringify(lines);
    if (signature === this.saidLast) return; // else a screen reader would read it again
    this.saidLast = signature;
    this.said.replaceChildren(...lines.map(([kind, text]) => make("p", kind, text)));
  }

  _tellFacts(state) {
    const { key } = this;
    const isEmpty = !state.written && !state.inherited && key.input !== "switch";
    const isSeen = key.input === "choice" || isEmpty; // the field itself tells the default
    const told = [key.legal, key.default_shown === "" || isSeen ? "" : `default ${key.default_shown}`];
    this.facts.replaceChildren(make("span", "", told.filter(Boolean).join("; ")));
    const path = pathOf(this.stage, key.name);
    if (state.isUntaken) this.facts.append(button("Back to what is written", () => this.act.forget(path)));
    if (!state.written || key.name === "stage" || state.isUntaken) return;
    if (key.suggested && state.mayRename) {
      const rename = { do: "rename", path, written: key.suggested };
      this.facts.append(button(`Rename to ${key.suggested}`, () => this.act.change(rename)));
    }
    const word = key.kind ? "Remove" : state.inherited ? "Back to the shared value" : this._back();
    const back = button(word, () => this.act.change({ do: "remove", path }));
    back.setAttribute("aria-label", `${word}: ${key.name}`);
    back.classList.toggle("quiet", !this.isChanged);
    this.facts.append(back);
  }

  _back() {
    if (this.key.required) return "Remove";
    const { default_shown: shown } = this.key;
    if (!this.isChanged || shown === "") return "Remove from the file";
    return shown.length > SHORT ? "Back to the default" : `Back to ${shown}`;
  }

  // Whether the row belongs to what is looked for
  fits(words, filter) {
    const wanted = {
      all: true,
      set: this.isSet,
      changed: this.isChanged,
      remarks: this.remarks.length > 0,
      problems: this.problems.length > 0,
    };
    return wanted[filter] && words.every((word) => this.words.includes(word));
  }
}
