// The page: what the preset is, whether it is right, and what to do next.

import { KeyForm, count, make, scopeOf } from "./keys.js";
import { Planning } from "./planning.js";
import { Preset, ask } from "./preset.js";
import { SHARED } from "./rows.js";

const page = (id) => document.getElementById(id);
let state, preset, keys, planning;

// ---------------------------------------------------------------- the top

function showState() {
  const { broken } = preset.answer;
  const { problems } = preset;
  const pill = page("state");
  pill.className = `state ${broken || problems.length ? "failed" : "finished"}`;
  pill.textContent = broken ? "No JSON yet" : problems.length ? count(problems.length, "problem") : "Fine";
  document.title = `${preset.isSaved ? "" : "* "}${state.name}: ${pill.textContent.toLowerCase()}`;
  if (broken) return;
  page("what").textContent = `A preset for training ${keys.form.trained}`;
  const about = scopeOf(preset.answer.scopes, SHARED).get("about")?.raw;
  const words = about?.startsWith('"') ? JSON.parse(about) : "";
  page("about").textContent = words;
}

// What to do next, by how things stand: a heading and a sentence
const NEXT = {
  broken: ["The text is no JSON", "Mend it in the text below; the keys then come back."],
  wrong: ["", "Each name leads to its key."],
  unsaved: ["The preset is fine", "Save it, see the plan, or start the training:"],
  saved: ["The preset is fine", "See the plan, which looks at the model and the pictures too, or start the training:"],
};

function standing() {
  if (preset.answer.broken) return "broken";
  if (preset.problems.length) return "wrong";
  return preset.isSaved ? "saved" : "unsaved";
}

function showNext() {
  const { problems } = preset;
  const stands = standing();
  const isFine = stands === "saved" || stands === "unsaved";
  const [title, text] = NEXT[stands];
  page("next").className = `next ${isFine ? "" : "failed"}`;
  page("next-title").textContent = title || `${count(problems.length, "thing")} to mend`;
  page("next-text").textContent = text;
  page("problems").replaceChildren(...problems.map(problemItem));
  page("command").hidden = !isFine;
  page("command-text").textContent = state.command;
  page("planning").hidden = !isFine && !planning.isRunning;
  page("plan-stale").hidden = planning.isOf(preset.text);
  page("next-problem").hidden = stands !== "wrong";
  page("next-problem").textContent = count(problems.length, "problem");
  page("plan").textContent = preset.isSaved ? "Make the plan" : "Save and make the plan";
}

function problemItem(problem) {
  const isWritten = preset.answer.broken || scopeOf(preset.answer.scopes, problem.stage).has(problem.key);
  const line = problem.line && isWritten ? `line ${problem.line}` : "";
  const where = [problem.stage === SHARED ? "" : keys.stageName(problem.stage), line];
  const place = make("small", { textContent: where.filter(Boolean).join(", ") });
  const leads = !preset.answer.broken && problem.text.startsWith(`${problem.key}:`);
  if (!leads) return make("li", {}, problem.text, " ", place);
  const link = make("button", { type: "button", className: "as-link", textContent: problem.key });
  link.addEventListener("click", () => keys.toKey(problem.key, true));
  return make("li", {}, link, problem.text.slice(problem.key.length), " ", place);
}

function showSaving() {
  const isNew = preset.version === "absent";
  page("save").disabled = preset.isSaved || preset.answer.broken || preset.untaken.size > 0;
  page("save").textContent = preset.isSaved ? "Saved" : isNew ? "Save the new file" : "Save";
  page("undo").disabled = preset.done.length === 0;
  page("redo").disabled = preset.undone.length === 0;
  const changes = unsavedChanges();
  page("unsaved").hidden = changes.length === 0;
  page("unsaved").querySelector("summary").textContent = count(changes.length, "unsaved change");
  page("unsaved").querySelector("ul").replaceChildren(...changes);
}

function unsavedChanges() {
  if (preset.savedScopes === undefined || preset.answer.broken) return [];
  const stages = new Set([...preset.savedScopes, ...preset.answer.scopes].map((each) => each.stage));
  return [...stages].flatMap((stage) => {
    const before = scopeOf(preset.savedScopes, stage);
    const after = scopeOf(preset.answer.scopes, stage);
    const names = [...new Set([...before.keys(), ...after.keys()])].filter((name) => name !== "stages");
    return names
      .filter((name) => before.get(name)?.raw !== after.get(name)?.raw)
      .map((name) => changeItem(stage, name, before.get(name)?.raw, after.get(name)?.raw));
  });
}

function changeItem(stage, name, before, after) {
  const shown = (raw) => (raw === undefined ? "not set" : /api_key|token$/.test(name) ? "***" : raw);
  const whole = stage === SHARED ? name : `${keys.stageName(stage)}: ${name}`;
  return make("li", {}, make("code", { textContent: whole }), ` ${shown(before)} → ${shown(after)}`);
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
    await keys.load(trainer);
    keys.show();
  } else {
    page("stages").hidden = true;
    page("source-details").open = true;
  }
  showState();
  showNext();
  showSaving();
  if (document.activeElement !== page("text")) page("text").value = text;
}

const LOST =
  "The editor does not answer; it was probably ended in the terminal. " +
  "Copy the text at the bottom before you close this page.";
let lost = false;

function trouble(text, ...buttons) {
  lost = lost && text === LOST;
  page("trouble").hidden = !text;
  page("trouble").replaceChildren(make("span", {}, text), ...buttons);
}

function isLost(error) {
  lost = error instanceof TypeError;
  trouble(lost ? LOST : error.message);
}

function toldOfChange(error) {
  const load = make("button", { type: "button", textContent: "Load the file" });
  load.addEventListener("click", () => preset.reload().then(() => trouble(""), isLost));
  const keep = make("button", { type: "button", textContent: "Keep what is here" });
  keep.addEventListener("click", () => {
    trouble("The next save writes over the file.");
    preset.keepOver();
  });
  trouble(`${error}.`, load, keep);
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
  page("save").addEventListener("click", save);
  page("undo").addEventListener("click", () => preset.undo());
  page("redo").addEventListener("click", () => preset.redo());
  page("plan").addEventListener("click", plan);
  page("copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText(state.command);
    page("copy").textContent = "Copied";
  });
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
      const word = trained.replace(/^an? /, "").replace(/^./, (letter) => letter.toUpperCase());
      const choice = make("button", { type: "button", textContent: word, title: `trainer ${trainer}` });
      choice.addEventListener("click", () => preset.begin(trainer));
      return choice;
    }),
  );
}

async function open() {
  state = await ask("state");
  page("name").textContent = state.name;
  page("place").textContent = `${state.name} in ${state.folder}`;
  preset = new Preset(state, show, isLost, () => lost && trouble(""));
  keys = new KeyForm(preset);
  planning = new Planning(page, (name, go) => keys.toKey(name, go));
  offerTrainers();
  listen();
  await show();
}

open().catch((error) => {
  page("state").textContent = "Trouble";
  isLost(error);
});
