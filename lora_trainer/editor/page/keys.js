// The keys: stages, groups, a row for each, and which of them are looked at.

import { ask } from "./preset.js";
import { Row, SHARED, pathOf } from "./rows.js";

const ELSEWHERE_READ = "Another program's word or section; what stands here is read as the keys that it stands for.";
const NOTHING_KNOWN = {
  input: "json",
  choices: [],
  legal: "",
  default: null,
  default_shown: "",
  required: false,
  example: "",
  effect: "",
  may_change: false,
  former: [],
};
const OF_ITS_OWN = ["stages", "stage"]; // keys that are not shown as keys

const page = (id) => document.getElementById(id);

export function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function count(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

// The keys of one stage, or those that all share, by their name
export function scopeOf(scopes, number) {
  const found = scopes.find((each) => each.stage === number);
  return new Map((found?.keys ?? []).map((each) => [each.name, each]));
}

export class KeyForm {
  constructor(preset) {
    this.preset = preset;
    this.forms = new Map();
    this.stage = SHARED;
    this.rows = new Map();
    this.groups = [];
    this.built = "";
    this.lastProblem = undefined;
    page("search").addEventListener("input", () => this.filter());
    page("filter").addEventListener("change", () => this.filter());
    page("jump").addEventListener("change", () => page(page("jump").value).scrollIntoView());
    page("next-problem").addEventListener("click", () => this.toNextProblem());
  }

  async load(trainer) {
    if (!this.forms.has(trainer)) this.forms.set(trainer, await ask(`form/${trainer}`));
    this.form = this.forms.get(trainer);
  }

  show() {
    const { scopes, trainer, unknown } = this.preset.answer;
    if (!scopes.some((each) => each.stage === this.stage)) this.stage = SHARED;
    const scope = scopeOf(scopes, this.stage);
    const signature = JSON.stringify([trainer, this.stage, scopes.length, this._otherNames(scope), unknown]);
    if (signature !== this.built) this._build(scope);
    this.built = signature;
    const shared = scopeOf(scopes, SHARED);
    const saved = this.preset.savedScopes && scopeOf(this.preset.savedScopes, this.stage);
    for (const [name, row] of this.rows) row.show(this._stateOf(name, scope, shared, saved));
    this.filter();
    this._showStages();
  }

  stageName(number) {
    return this.preset.answer.scopes.find((each) => each.stage === number)?.name ?? "";
  }

  // ---------------------------------------------------------------- what there is to say of a key

  _stateOf(name, scope, shared, saved) {
    const { remarks, elsewhere, scopes, unknown } = this.preset.answer;
    const { stage } = this;
    const isShared = (each) => stage === SHARED && !scopeOf(scopes, each.stage).has(name);
    const given = elsewhere.filter((each) => each.key === name && (each.stage === stage || isShared(each)));
    return {
      stage,
      written: scope.get(name),
      mayRename: !scope.has(unknown[name]),
      inherited: stage === SHARED ? undefined : shared.get(name),
      problems: this._saidOf(this.preset.problems, name, () => false),
      isUntaken: this.preset.untaken.has(JSON.stringify(pathOf(stage, name))),
      remarks: this._saidOf(remarks, name, isShared),
      elsewhere: given.filter((each) => each.stage === stage || each.by !== "the stage before").slice(0, 1),
      unsaved: saved !== undefined && scope.get(name)?.raw !== saved.get(name)?.raw,
    };
  }

  // What a stage says of a key that it shares is told at the shared key too, after the stage's name
  _saidOf(list, name, isShared) {
    const here = list.filter((each) => each.key === name && (each.stage === this.stage || isShared(each)));
    const named = (each) => ({ ...each, text: `${this.stageName(each.stage)}: ${each.text}` });
    return here.map((each) => (each.stage === this.stage ? each : named(each)));
  }

  // ---------------------------------------------------------------- rows and groups

  // Rows are made anew for another trainer, another stage, or other keys that are in no form
  _build(scope) {
    this.rows = new Map();
    this.groups = [];
    const parts = [];
    const others = this._otherNames(scope);
    if (this.stage !== SHARED) {
      const about = "A stage has its own keys beside those that all share.";
      parts.push(this._section("this stage", about, this._stageElements()));
    }
    if (others.length) {
      const about =
        "They stand in the file and are no keys of their own: unknown ones, former names, other programs' sections.";
      const elements = others.map((name) => this._row(this._otherKey(name), "other", scope.get(name)?.raw));
      parts.push(this._section("other keys", about, elements));
    }
    for (const group of this.form.groups) {
      const keys = group.keys.filter((key) => this.stage === SHARED || !this.form.of_the_whole.includes(key.name));
      const elements = keys.map((key) => this._row(key, group.name, scope.get(key.name)?.raw));
      if (elements.length) parts.push(this._section(group.name, group.about, elements));
    }
    page("form").replaceChildren(...parts);
    page("group-list").replaceChildren(...this.groups.map((each) => each.item));
    const options = this.groups.map((each) => make("option", { value: each.id, textContent: each.title }));
    page("jump").replaceChildren(...options);
  }

  _section(name, about, elements) {
    const id = `group-${name.replaceAll(" ", "-")}`;
    const title = name.charAt(0).toUpperCase() + name.slice(1);
    const heading = make("h2", { id, textContent: title });
    const hint = make("p", { className: "hint", textContent: about });
    const part = make("section", { className: "group-of-keys" }, heading, hint, ...elements);
    part.setAttribute("aria-labelledby", id);
    const link = make("a", { href: `#${id}`, textContent: title });
    this.groups.push({ name, title, id, part, link, item: make("li", {}, link) });
    return part;
  }

  _row(key, group, raw) {
    const { preset } = this;
    const row = new Row(key, group, raw, {
      type: (change) => preset.type(change),
      change: (...changes) => preset.change(...changes),
      forget: (path) => preset.forget(path),
    });
    this.rows.set(key.name, row);
    return row.element;
  }

  _otherNames(scope) {
    const known = new Set(this.form.groups.flatMap((group) => group.keys.map((key) => key.name)));
    return [...scope.keys()].filter((name) => !known.has(name) && !OF_ITS_OWN.includes(name));
  }

  _otherKey(name) {
    const suggested = this.preset.answer.unknown[name];
    const isUnknown = suggested !== undefined;
    const about = isUnknown ? "No key of this trainer." : this.form.others[name] || ELSEWHERE_READ;
    const kind = isUnknown ? "unknown" : "other";
    return { ...NOTHING_KNOWN, name, about, kind, suggested: suggested || "" };
  }

  // ---------------------------------------------------------------- stages

  _stageElements() {
    const about = "The name of the stage: of its folder, and at the end of its files' names.";
    const key = { ...this._otherKey("stage"), about, input: "text", required: true, kind: "" };
    const gone = make("button", { type: "button", textContent: "Remove this stage" });
    gone.disabled = this.preset.answer.scopes.length < 3;
    gone.addEventListener("click", () => {
      const path = ["stages", this.stage];
      this.stage = SHARED;
      this.preset.change({ do: "remove", path });
    });
    return [this._row(key, "stage", ""), make("p", { className: "buttons" }, gone)];
  }

  _showStages() {
    const { scopes } = this.preset.answer;
    page("stages").hidden = scopes.length < 2;
    const more = make("button", { type: "button", textContent: "Add a stage" });
    more.addEventListener("click", async () => {
      const number = scopes.length - 1;
      await this.preset.change({ do: "append", path: ["stages"], written: `{"stage": "stage_${number + 1}"}` });
      this.toStage(number);
    });
    page("stages").replaceChildren(...scopes.map((scope) => this._stageTab(scope)), more);
  }

  _stageTab({ stage, name }) {
    const wrong = this.preset.problems.filter((problem) => problem.stage === stage).length;
    const text = stage === SHARED ? "Shared by all stages" : `${stage + 1}. ${name}`;
    const tab = make("button", { type: "button", textContent: wrong ? `${text} (${wrong})` : text });
    tab.setAttribute("aria-pressed", String(stage === this.stage));
    tab.addEventListener("click", () => this.toStage(stage));
    return tab;
  }

  toStage(number) {
    this.stage = number;
    this.show();
  }

  // ---------------------------------------------------------------- looking for keys

  filter() {
    const words = page("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const filter = page("filter").value;
    let found = 0;
    for (const row of this.rows.values()) {
      const fits = row.fits(words, filter);
      row.element.hidden = !fits;
      found += fits;
    }
    for (const group of this.groups) this._showGroup(group);
    for (const option of page("jump").options) option.hidden = page(option.value).parentElement.hidden;
    const set = [...this.rows.values()].filter((row) => row.isSet).length;
    const all = `${count(this.rows.size, "key")}, ${set} set in the file`;
    page("count").textContent = words.length || filter !== "all" ? `${found} of ${all}` : all;
  }

  _showGroup({ part, item, link, title }) {
    const inside = [...part.querySelectorAll(".key")];
    part.hidden = item.hidden = inside.length > 0 && inside.every((row) => row.hidden);
    const wrong = inside.filter((row) => row.classList.contains("wrong")).length;
    link.textContent = wrong ? `${title} (${wrong})` : title;
    link.classList.toggle("wrong", wrong > 0);
  }

  // Whether there is such a key; with `go` its field gets the focus
  toKey(name, go) {
    const stages = this.preset.problems.filter((each) => each.key === name).map((each) => each.stage);
    const known = this.rows.has(name) || stages.length > 0;
    if (!known || !go) return known;
    if (stages.length && !stages.includes(this.stage)) this.toStage(stages[0]);
    const row = this.rows.get(name);
    if (row === undefined) return false;
    if (row.element.hidden) {
      page("search").value = "";
      page("filter").value = "all";
      this.filter();
    }
    row.element.scrollIntoView({ block: "center" });
    row.field.element.focus({ preventScroll: true });
    return true;
  }

  // The problem after the one that was gone to last, and after the last one the first
  toNextProblem() {
    const keys = [...new Set(this.preset.problems.map((each) => each.key))].filter((key) => this.toKey(key, false));
    this.lastProblem = keys[(keys.indexOf(this.lastProblem) + 1) % keys.length];
    if (this.lastProblem !== undefined) this.toKey(this.lastProblem, true);
  }
}
