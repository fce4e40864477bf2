// The page: what the preset is, whether it is right, what to do next, and a row for each key.

import { Planning } from "./planning.js";
import { Preset, ask } from "./preset.js";
import { Row, SHARED, pathOf } from "./rows.js";

const page = (id) => document.getElementById(id);
const forms = new Map();
let state, preset, planning, form;
let stage = SHARED;
let rows = new Map();
let groups = [];

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function count(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

// ---------------------------------------------------------------- what there is to say

function scopeOf(scopes, number) {
  const found = (scopes ?? []).find((each) => each.stage === number);
  return new Map((found?.keys ?? []).map((each) => [each.name, each]));
}

function stageName(number) {
  return preset.answer.scopes.find((each) => each.stage === number)?.name ?? "";
}

// What all stages say of a shared key is told at the key too, after the stage's name
function saidOf(list, name, own) {
  const here = list.filter((each) => each.key === name && (each.stage === stage || own(each)));
  return here.map((each) => (each.stage === stage || stage !== SHARED ? each : { ...each, text: `${stageName(each.stage)}: ${each.text}` }));
}

function stateOf(name, scope, shared, saved) {
  const { remarks, elsewhere } = preset.answer;
  const ownOfStage = (each) => stage === SHARED && each.stage !== SHARED && !scopeOf(preset.answer.scopes, each.stage).has(name);
  return {
    stage,
    written: scope.get(name),
    inherited: stage === SHARED ? undefined : shared.get(name),
    problems: saidOf(preset.problems, name, () => false),
    isUntaken: preset.untaken.has(JSON.stringify(pathOf(stage, name))),
    remarks: saidOf(remarks, name, ownOfStage),
    elsewhere: elsewhere.filter((each) => each.key === name && (each.stage === stage || stage === SHARED)).slice(0, 1),
    unsaved: saved !== undefined && scope.get(name)?.raw !== saved.get(name)?.raw,
  };
}

// ---------------------------------------------------------------- the form

async function formOf(trainer) {
  if (!forms.has(trainer)) forms.set(trainer, await ask(`form/${trainer}`));
  return forms.get(trainer);
}

const ACT = {
  type: (change) => preset.type(change),
  change: (...changes) => preset.change(...changes),
  forget: (path) => preset.forget(path),
};

function rowOf(key, group, raw) {
  const row = new Row(key, group, raw, ACT);
  rows.set(key.name, row);
  return row.element;
}

const ELSEWHERE_READ = "Another program's word or section; what stands here is read as the keys that it stands for.";

function otherKey(name) {
  const suggested = preset.answer.unknown[name];
  const isUnknown = suggested !== undefined;
  const about = isUnknown ? "No key of this trainer." : form.others[name] || ELSEWHERE_READ;
  return {
    name, about, input: "json", choices: [], legal: "", default: null, default_shown: "", required: false, example: "",
    effect: "", may_change: false, former: [], kind: isUnknown ? "unknown" : "other", suggested: suggested || "",
  }; // prettier-ignore
}

function otherNames(scope) {
  const known = new Set(form.groups.flatMap((group) => group.keys.map((key) => key.name)));
  return [...scope.keys()].filter((name) => !known.has(name) && !["stages", "stage"].includes(name));
}

function section(name, about, elements) {
  const id = `group-${name.replaceAll(" ", "-")}`;
  const title = name.charAt(0).toUpperCase() + name.slice(1);
  const heading = make("h2", { id, textContent: title });
  const part = make("section", { className: "group-of-keys" }, heading, make("p", { className: "hint", textContent: about }), ...elements);
  part.setAttribute("aria-labelledby", id);
  groups.push({ name, title, id, part });
  return part;
}

// Rows are made anew for another trainer, another stage, or other keys that are in no form
function build(scope) {
  rows = new Map();
  groups = [];
  const parts = [];
  const others = otherNames(scope);
  if (stage !== SHARED) parts.push(section("this stage", "A stage has its own keys beside those that all share.", stageElements()));
  if (others.length) {
    const about = "They stand in the file and are no keys of their own: unknown ones, former names, other programs' sections.";
    parts.push(section("other keys of this file", about, others.map((name) => rowOf(otherKey(name), "other", scope.get(name)?.raw))));
  }
  for (const group of form.groups) {
    const keys = group.keys.filter((key) => stage === SHARED || !form.of_the_whole.includes(key.name));
    const elements = keys.map((key) => rowOf(key, group.name, scope.get(key.name)?.raw));
    if (elements.length) parts.push(section(group.name, group.about, elements));
  }
  page("form").replaceChildren(...parts);
  page("group-list").replaceChildren(
    ...groups.map((each) => {
      each.link = make("a", { href: `#${each.id}`, textContent: each.title });
      each.item = make("li", {}, each.link);
      return each.item;
    }),
  );
  page("jump").replaceChildren(...groups.map((each) => make("option", { value: each.id, textContent: each.title })));
}

function stageElements() {
  const name = otherKey("stage");
  const key = { ...name, about: "The name of the stage: of its folder, and at the end of its files' names.", input: "text", required: true, kind: "" };
  const gone = make("button", { type: "button", textContent: "Remove this stage" });
  gone.disabled = preset.answer.scopes.length < 3;
  gone.addEventListener("click", () => {
    const path = ["stages", stage];
    stage = SHARED;
    preset.change({ do: "remove", path });
  });
  return [rowOf(key, "stage", ""), make("p", { className: "buttons" }, gone)];
}

function showStages() {
  const { scopes } = preset.answer;
  page("stages").hidden = scopes.length < 2;
  const tabs = scopes.map((each) => {
    const wrong = preset.problems.filter((problem) => problem.stage === each.stage).length;
    const text = each.stage === SHARED ? "Shared by all stages" : `${each.stage + 1}. ${each.name}`;
    const tab = make("button", { type: "button", textContent: wrong ? `${text} (${wrong})` : text });
    tab.setAttribute("aria-pressed", String(each.stage === stage));
    tab.addEventListener("click", () => goToStage(each.stage));
    return tab;
  });
  const more = make("button", { type: "button", textContent: "Add a stage" });
  more.addEventListener("click", async () => {
    const number = scopes.length - 1;
    await preset.change({ do: "append", path: ["stages"], written: `{"stage": "stage_${number + 1}"}` });
    goToStage(number);
  });
  page("stages").replaceChildren(...tabs, more);
}

function goToStage(number) {
  stage = number;
  show();
}

let built = "";

function showKeys() {
  const { scopes, trainer, unknown } = preset.answer;
  if (!scopes.some((each) => each.stage === stage)) stage = SHARED;
  const scope = scopeOf(scopes, stage);
  const shared = scopeOf(scopes, SHARED);
  const saved = preset.savedScopes && scopeOf(preset.savedScopes, stage);
  const signature = JSON.stringify([trainer, stage, scopes.length, otherNames(scope), unknown]);
  if (signature !== built) build(scope);
  built = signature;
  for (const [name, row] of rows) row.show(stateOf(name, scope, shared, saved));
  filterRows();
}

function filterRows() {
  const words = page("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const filter = page("filter").value;
  let found = 0;
  for (const row of rows.values()) {
    const fits = row.fits(words, filter);
    row.element.hidden = !fits;
    found += fits;
  }
  for (const each of groups) {
    const inside = [...each.part.querySelectorAll(".key")];
    const empty = inside.length > 0 && inside.every((row) => row.hidden);
    each.part.hidden = each.item.hidden = empty;
    const wrong = inside.filter((row) => row.classList.contains("wrong")).length;
    each.link.textContent = wrong ? `${each.title} (${wrong})` : each.title;
    each.link.classList.toggle("wrong", wrong > 0);
  }
  for (const option of page("jump").options) option.hidden = page(option.value).parentElement.hidden;
  const set = [...rows.values()].filter((row) => row.isSet).length;
  const all = `${count(rows.size, "key")}, ${set} set in the file`;
  page("count").textContent = words.length || filter !== "all" ? `${found} of ${all}` : all;
}

function toKey(name, go) {
  const problem = preset.problems.find((each) => each.key === name);
  const known = rows.has(name) || problem;
  if (!known || !go) return Boolean(known);
  if (problem && problem.stage !== stage) goToStage(problem.stage);
  const row = rows.get(name);
  if (row === undefined) return false;
  if (row.element.hidden) {
    page("search").value = "";
    page("filter").value = "all";
    filterRows();
  }
  row.element.scrollIntoView({ block: "center" });
  row.field.element.focus({ preventScroll: true });
  return true;
}

// ---------------------------------------------------------------- the top

function showState() {
  const { broken } = preset.answer;
  const { problems } = preset;
  const pill = page("state");
  pill.className = `state ${broken || problems.length ? "failed" : "finished"}`;
  pill.textContent = broken ? "No JSON yet" : problems.length ? count(problems.length, "problem") : "Fine";
  document.title = `${preset.isSaved ? "" : "* "}${state.name}: ${pill.textContent.toLowerCase()}`;
  if (broken) return;
  page("what").textContent = `A preset for training ${form.trained}`;
  const about = scopeOf(preset.answer.scopes, SHARED).get("about")?.raw;
  const words = about?.startsWith('"') ? JSON.parse(about) : "";
  page("about").textContent = words;
}

function showNext() {
  const { broken } = preset.answer;
  const { problems } = preset;
  const isFine = !broken && problems.length === 0;
  page("next").className = `next ${isFine ? "" : "failed"}`;
  page("next-title").textContent = broken
    ? "The text is no JSON"
    : isFine
      ? "The preset is fine"
      : `${count(problems.length, "thing")} to mend`;
  page("next-text").textContent = isFine
    ? preset.isSaved
      ? "See the plan, which looks at the model and the pictures too, or start the training:"
      : "Save it, see the plan, or start the training:"
    : broken
      ? "Mend it in the text below; the keys then come back."
      : "Each name leads to its key.";
  page("problems").replaceChildren(...problems.map(problemItem));
  page("command").hidden = !isFine;
  page("command").textContent = state.command;
  page("planning").hidden = !isFine && !planning.isRunning;
  page("plan-stale").hidden = planning.isOf(preset.text);
  page("plan").textContent = preset.isSaved ? "Make the plan" : "Save and make the plan";
}

function problemItem(problem) {
  const where = [problem.stage === SHARED ? "" : stageName(problem.stage), problem.line ? `line ${problem.line}` : ""];
  const place = make("small", { textContent: where.filter(Boolean).join(", ") });
  if (preset.answer.broken || !problem.text.startsWith(`${problem.key}:`)) return make("li", {}, problem.text, " ", place);
  const link = make("button", { type: "button", className: "as-link", textContent: problem.key });
  link.addEventListener("click", () => toKey(problem.key, true));
  return make("li", {}, link, problem.text.slice(problem.key.length), " ", place);
}

function showSaving() {
  const changes = unsavedChanges();
  page("save").disabled = preset.isSaved || preset.answer.broken || preset.untaken.size > 0;
  page("save").textContent = preset.isSaved ? "Saved" : state.version === "absent" && preset.version === "absent" ? "Save the new file" : "Save";
  page("undo").disabled = preset.done.length === 0;
  page("redo").disabled = preset.undone.length === 0;
  page("unsaved").hidden = changes.length === 0;
  page("unsaved").querySelector("summary").textContent = count(changes.length, "unsaved change");
  page("unsaved").querySelector("ul").replaceChildren(
    ...changes.map(({ name, from, to }) => make("li", {}, make("code", { textContent: name }), ` ${from ?? "not set"} → ${to ?? "not set"}`)),
  );
}

function unsavedChanges() {
  if (preset.savedScopes === undefined || preset.answer.broken) return [];
  return [...new Set([...preset.savedScopes, ...preset.answer.scopes].map((each) => each.stage))].flatMap((number) => {
    const before = scopeOf(preset.savedScopes, number);
    const after = scopeOf(preset.answer.scopes, number);
    const stars = (name, raw) => (raw && /api_key|token$/.test(name) ? "***" : raw);
    return [...new Set([...before.keys(), ...after.keys()])]
      .filter((name) => name !== "stages" && before.get(name)?.raw !== after.get(name)?.raw)
      .map((name) => ({
        name: number === SHARED ? name : `${stageName(number)}: ${name}`,
        from: stars(name, before.get(name)?.raw),
        to: stars(name, after.get(name)?.raw),
      }));
  });
}

// ---------------------------------------------------------------- all of it

async function show() {
  const { broken, trainer, text } = preset.answer;
  const isNew = text === "" && preset.version === "absent";
  page("begin").hidden = !isNew;
  page("next").hidden = page("source").hidden = page("bar").hidden = isNew;
  page("keys").hidden = page("looking").hidden = isNew || broken;
  if (isNew) {
    page("state").textContent = "New";
    return;
  }
  if (!broken) {
    form = await formOf(trainer);
    showKeys();
    showStages();
  } else {
    page("stages").hidden = true;
    page("source-details").open = true;
  }
  showState();
  showNext();
  showSaving();
  if (document.activeElement !== page("text")) page("text").value = text;
}

function trouble(text, ...buttons) {
  page("trouble").hidden = !text;
  page("trouble").replaceChildren(text, " ", ...buttons);
}

function isLost(error) {
  const lost = error instanceof TypeError;
  trouble(lost ? "The editor does not answer; it was probably ended in the terminal. Copy the text at the bottom before you close this page." : error.message);
}

function toldOfChange(error) {
  const load = make("button", { type: "button", textContent: "Load the file" });
  load.addEventListener("click", () => preset.reload().then(() => trouble(""), isLost));
  const keep = make("button", { type: "button", textContent: "Keep what is here" });
  keep.addEventListener("click", () => {
    preset.overChanges = true;
    trouble("The next save writes over the file.");
  });
  trouble(`${error}.`, load, " ", keep);
}

async function save() {
  if (page("save").disabled && preset.waiting.size === 0) return preset.isSaved;
  try {
    await preset.save();
    trouble("");
    return true;
  } catch (error) {
    if (error.changed) toldOfChange(error.message);
    else isLost(error);
    return false;
  }
}

async function plan() {
  if (!preset.isSaved && !(await save())) return;
  if (preset.problems.length === 0) await planning.start(preset.text);
}

async function lookAtFile() {
  if (preset.overChanges || !page("trouble").hidden) return;
  try {
    const { version } = await ask("version");
    if (version !== preset.version) toldOfChange(`${state.name} was changed by another program`);
  } catch (error) {
    isLost(error);
  }
}

function takeText() {
  const typed = page("text").value; // in which the browser makes every line end a single character
  preset.replace(preset.saved.includes("\r\n") ? typed.replaceAll("\n", "\r\n") : typed);
}

function listen() {
  page("search").addEventListener("input", filterRows);
  page("filter").addEventListener("change", filterRows);
  page("save").addEventListener("click", save);
  page("undo").addEventListener("click", () => preset.undo());
  page("redo").addEventListener("click", () => preset.redo());
  page("plan").addEventListener("click", plan);
  page("jump").addEventListener("change", () => page(page("jump").value).scrollIntoView());
  let timer = 0;
  page("text").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(takeText, 300);
  });
  window.addEventListener("focus", lookAtFile);
  window.addEventListener("beforeunload", (event) => {
    if (!preset.isSaved) event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey;
    const typing = event.target.matches?.("input:not([type=checkbox]), textarea");
    const key = event.key.toLowerCase();
    if (command && key === "s") {
      event.preventDefault();
      save();
    } else if (command && key === "z" && !typing) {
      event.preventDefault();
      if (event.shiftKey) preset.redo();
      else preset.undo();
    } else if (key === "/" && !command && !typing) {
      event.preventDefault();
      page("search").focus();
    }
  });
}

function offerTrainers() {
  page("trainers").replaceChildren(
    ...Object.entries(state.trainers).map(([trainer, trained]) => {
      const choice = make("button", { type: "button", textContent: trained.replace(/^an? /, "").replace(/^./, (letter) => letter.toUpperCase()), title: `trainer ${trainer}` });
      choice.addEventListener("click", () => preset.begin(trainer));
      return choice;
    }),
  );
}

async function open() {
  state = await ask("state");
  page("name").textContent = state.name;
  page("place").textContent = `${state.name} in ${state.folder}`;
  preset = new Preset(state, show, isLost);
  planning = new Planning(page, toKey);
  offerTrainers();
  listen();
  await show();
}

open().catch((error) => {
  page("state").textContent = "Trouble";
  isLost(error);
});
