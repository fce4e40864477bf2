// The preset's text with its history; every change is made by the server, which answers with all there is to say.

const DEBOUNCE_MS = 250;
const SAME_CHANGE_MS = 2000; // typing on in one key is one thing to undo

export class Refused extends Error {
  constructor(answer) {
    super(answer.refused);
    this.changed = Boolean(answer.changed);
  }
}

export async function ask(name, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const response = await fetch(name, options);
  const answer = await response.json();
  if (!response.ok) throw new Refused(answer);
  return answer;
}

export class Preset {
  constructor(state, whenNew, whenLost) {
    this.whenNew = whenNew;
    this.whenLost = whenLost;
    this.saved = state.saved;
    this.version = state.version;
    this.overChanges = false;
    this.undone = [];
    this.done = [];
    this.waiting = new Map();
    this.timer = 0;
    this.work = Promise.resolve();
    this.lastKey = "";
    this.lastTime = 0;
    this.answer = state;
    this.savedScopes = state.text === state.saved ? state.scopes : undefined;
  }

  get text() {
    return this.answer.text;
  }

  get isSaved() {
    return this.text === this.saved && this.waiting.size === 0;
  }

  // A change while one types: the newest for each place counts.
  type(change) {
    this.waiting.set(JSON.stringify(change.path), change);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), DEBOUNCE_MS);
  }

  async change(...changes) {
    for (const change of changes) this.waiting.set(JSON.stringify(change.path), change);
    await this.flush();
  }

  // One request after the other, each for the text that the one before gave.
  flush() {
    clearTimeout(this.timer);
    this.work = this.work.then(async () => {
      if (this.waiting.size === 0) return;
      const changes = [...this.waiting.values()];
      this.waiting.clear();
      await this._look(this.text, changes, [...changes.map((each) => JSON.stringify(each.path))].join());
    });
    return this.work;
  }

  replace(text) {
    this.work = this.work.then(() => this._look(text, [], "text"));
    return this.work;
  }

  begin(trainer) {
    this.work = this.work.then(async () => this._take(await ask("begin", { trainer })));
    return this.work;
  }

  undo() {
    return this._step(this.done, this.undone);
  }

  redo() {
    return this._step(this.undone, this.done);
  }

  async save() {
    await this.flush();
    const text = this.text;
    const content = await ask("save", { text, version: this.version, over_changes: this.overChanges });
    this.saved = text;
    this.version = content.version;
    this.overChanges = false;
    this.savedScopes = this.answer.scopes;
    this.whenNew(this.answer);
  }

  async reload() {
    const state = await ask("state");
    this._remember("reload");
    this.saved = state.saved;
    this.version = state.version;
    this.savedScopes = state.scopes;
    this._take(state);
  }

  async _look(text, changes, key) {
    let answer;
    try {
      answer = await ask("look", { text, changes });
    } catch (error) {
      this.whenLost(error);
      return;
    }
    if (answer.text !== this.text) this._remember(key);
    this._take(answer);
  }

  async _step(from, to) {
    await this.flush();
    if (from.length === 0) return;
    const text = from.pop();
    to.push(this.text);
    this.lastKey = "";
    const answer = await ask("look", { text, changes: [] });
    this._take(answer);
  }

  _remember(key) {
    const now = Date.now();
    if (key !== this.lastKey || now - this.lastTime > SAME_CHANGE_MS) this.done.push(this.text);
    this.lastKey = key;
    this.lastTime = now;
    this.undone = [];
  }

  _take(answer) {
    this.answer = { ...this.answer, scopes: [], remarks: [], elsewhere: [], unknown: {}, not_taken: [], ...answer };
    this.whenNew(this.answer);
  }
}
