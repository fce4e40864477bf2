// With what a value is typed: from the JSON that is written to what stands in the field, and back.

function parsed(raw) {
  try {
    return JSON.parse(raw);
  } catch {
    return undefined;
  }
}

function isText(raw) {
  return raw !== undefined && raw.startsWith('"');
}

function isBlank(raw) {
  return raw === undefined || raw === "null" || (isText(raw) && parsed(raw).trim() === "");
}

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

// What a field shows of the JSON, for a kind of field
export const SHOWN = {
  text: (raw) => (isText(raw) ? parsed(raw) : raw === "null" ? "" : raw),
  number: (raw) => SHOWN.text(raw),
  lines: (raw) => {
    const value = parsed(raw);
    return Array.isArray(value) && value.every((each) => typeof each === "string") ? value.join("\n") : SHOWN.text(raw);
  },
  numbers: (raw) => (raw.startsWith("[") ? raw.slice(1, -1).trim() : SHOWN.text(raw)),
  word: (raw) => SHOWN.text(raw),
  json: (raw) => raw.replaceAll("\r\n", "\n").replaceAll(`\n${hanging(raw)}`, "\n"),
};

// The JSON of what was typed; `before` is what is written so far
export const WRITTEN = {
  text: (typed, before) => {
    const kept = before !== undefined && before !== "null" && !isText(before) && parsed(typed) !== undefined;
    return kept ? typed.trim() : JSON.stringify(typed);
  },
  number: (typed, before) => {
    const quoted = isText(before) && NUMBER.test(parsed(before)); // the GUI writes "75" in some places, 75 in others
    return NUMBER.test(typed.trim()) && !quoted ? typed.trim() : JSON.stringify(typed.trim());
  },
  lines: (typed, before) => {
    const items = typed.split("\n").map((each) => each.trim()).filter(Boolean);
    if (isText(before) && items.length < 2) return JSON.stringify(items[0] ?? "");
    return `[${items.map((each) => JSON.stringify(each)).join(", ")}]`;
  },
  numbers: (typed) => {
    const items = typed.trim();
    if (items === "") return '""';
    return items.startsWith("[") ? items : `[${items}]`;
  },
  word: (typed) => {
    const value = parsed(typed);
    return value === undefined || typeof value === "string" ? JSON.stringify(typed) : typed.trim();
  },
  json: (typed, before) => (typed.trim() ? typed.trim().replaceAll("\n", `\n${hanging(before ?? "")}`) : '""'),
};

// How far the lines of an object stand in, counted at its closing bracket
function hanging(raw) {
  return raw.match(/\n([ \t]*)[\]}]$/)?.[1] ?? "";
}

const LINES_AT_MOST = 16;
const A_LINE = 42; // characters, for browsers that do not fit a field to its text

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

// A field has `element`, `show(raw, instead)` and tells `typed(json)`; json null means that the key goes.
function typedField(kind, field, typed) {
  let before;
  field.autocomplete = "off";
  field.spellcheck = field.tagName === "TEXTAREA" && kind === "text";
  field.addEventListener("input", () => {
    const nothing = before === undefined && field.value.trim() === "";
    typed(nothing ? null : WRITTEN[kind](field.value, before));
  });
  return {
    element: field,
    show(raw, instead) {
      before = raw;
      const text = raw === undefined ? "" : SHOWN[kind](raw);
      if (document.activeElement !== field) field.value = text; // else a person is typing
      field.placeholder = instead;
      if (field.tagName === "TEXTAREA") {
        const lines = (text || instead).split("\n").map((line) => 1 + Math.floor(line.length / A_LINE));
        field.rows = Math.min(lines.reduce((sum, each) => sum + each), LINES_AT_MOST);
      }
    },
  };
}

function switchField(key, typed) {
  const box = element("input", { type: "checkbox" });
  const word = element("span", {});
  const label = element("span", { className: "switch" });
  label.append(box, word);
  const says = () => (word.textContent = box.checked ? "true" : "false");
  box.addEventListener("change", () => {
    says();
    typed(String(box.checked));
  });
  return {
    element: box,
    around: label,
    show(raw) {
      box.checked = isBlank(raw) ? key.default === true : /^"?\s*(true|1)\s*"?$/i.test(raw);
      says();
    },
  };
}

function choiceField(key, typed) {
  const select = element("select", {});
  const folded = new Map(key.choices.map((choice) => [String(choice).toLowerCase(), String(choice)]));
  select.addEventListener("change", () => {
    if (select.value === "") return typed(null);
    const choice = key.choices.find((each) => String(each) === select.value);
    typed(choice === undefined ? select.selectedOptions[0].dataset.raw : JSON.stringify(choice));
  });
  return {
    element: select,
    show(raw, instead) {
      const unset = element("option", { value: "", textContent: instead ? `not set (${instead})` : "not set" });
      const options = key.choices.map((choice) => element("option", { value: String(choice), textContent: choice }));
      select.replaceChildren(unset, ...options);
      if (raw === undefined || isBlank(raw)) {
        select.value = "";
        return;
      }
      const said = SHOWN.text(raw).trim();
      const known = folded.get(said.toLowerCase());
      if (known === undefined) {
        const odd = element("option", { value: `written ${said}`, textContent: `${said} (as written)` });
        odd.dataset.raw = raw;
        select.append(odd);
      }
      select.value = known ?? `written ${said}`;
    },
  };
}

function suggestionsField(key, typed, id) {
  const list = element("datalist", { id: `${id}-choices` });
  list.append(...key.choices.map((choice) => element("option", { value: String(choice) })));
  const field = element("input", { type: "text" });
  field.setAttribute("list", list.id);
  const around = element("span", { className: "field" });
  around.append(field, list);
  return { ...typedField("text", field, typed), around };
}

function secretField(typed) {
  const field = element("input", { type: "password" });
  const eye = element("button", { type: "button", textContent: "Show" });
  eye.addEventListener("click", () => {
    field.type = field.type === "password" ? "text" : "password";
    eye.textContent = field.type === "password" ? "Show" : "Hide";
  });
  const around = element("span", { className: "field secret" });
  around.append(field, eye);
  const made = { ...typedField("text", field, typed), around };
  field.autocomplete = "new-password";
  return made;
}

const LONG = 50;

export function makeField(key, id, isLong, typed) {
  const area = () => element("textarea", { rows: 1 });
  const line = (mode) => element("input", { type: "text", inputMode: mode });
  switch (key.input) {
    case "switch":
      return switchField(key, typed);
    case "choice":
      return choiceField(key, typed);
    case "suggestions":
      return suggestionsField(key, typed, id);
    case "secret":
      return secretField(typed);
    case "number":
      return typedField("number", line("decimal"), typed);
    case "text":
      return typedField("text", isLong ? area() : line("text"), typed);
    case "lines":
    case "json":
      return typedField(key.input, Object.assign(area(), { className: key.input }), typed);
    default:
      return typedField(key.input, line("text"), typed);
  }
}

export function isLongText(key, raw) {
  return key.name === "about" || (raw ?? "").length > LONG || (raw ?? "").includes("\\n");
}
