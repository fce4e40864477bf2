// The preset's text with its history; every change is made by the server, which answers with all there is to say.

const DEBOUNCE_MS = 250;
const SAME_CHANGE_MS = 2000; // typing on in one key is one thing to undo

const NOTHING_SAID = { scopes: [], remarks: [], elsewhere: [], unknown: {} }; // of a text that is no JSON

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
  constructor(state, whenNew, whenLost, whenHeard) {
    this.whenNew = whenNew;
    this.whenLost = whenLost;
    this.whenHeard = whenHeard;
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
    this.untaken = new Map();
    this.answer = { ...NOTHING_SAID, ...state };
    this.savedScopes = state.text === state.saved ? state.scopes : undefined;
  }

  get text() {
    return this.answer.text;
  }

  get isSaved() {
    const isSame = this.text === this.saved && !this.overChanges;
    return isSame && this.waiting.size === 0 && this.untaken.size === 0;
  }

  // What the reader refuses, and what was typed and is no JSON yet
  get problems() {
    const untaken = [...this.untaken.values()].map(({ path, text }) => ({
      text, key: path.at(-1), line: 0, stage: path.length > 1 ? path[1] : -1,
    })); // prettier-ignore
    return [...this.answer.problems, ...untaken];
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
    return this._queue(async () => {
      if (this.waiting.size === 0) return;
      const changes = [...this.waiting.values()];
      this.waiting.clear();
      try {
        await this._look(this.text, changes);
      } catch (error) {
        if (!(error instanceof Refused)) this._keep(changes);
        throw error;
      }
    });
  }

  replace(text) {
    return this._queue(() => this._look(text, []));
  }

  begin(trainer) {
    return this._queue(async () => this._take(await ask("begin", { trainer })));
  }

  async undo() {
    await this.flush();
    return this._queue(() => this._step(this.done, this.undone));
  }

  async redo() {
    await this.flush();
    return this._queue(() => this._step(this.undone, this.done));
  }

  // Give up what was typed at a place and is no JSON
  forget(path) {
    this.untaken.delete(JSON.stringify(path));
    this._take(this.answer);
  }

  // Write over what another program has made of the file meanwhile
  keepOver() {
    this.overChanges = true;
    this.whenNew();
  }

  async save() {
    await this.flush();
    const text = this.text;
    const content = await ask("save", { text, version: this.version, over_changes: this.overChanges });
    this.saved = text;
    this.version = content.version;
    this.overChanges = false;
    this.savedScopes = this.answer.scopes;
    this.whenNew();
  }

  async reload() {
    const state = await ask("state");
    this._remember("reload");
    this.saved = state.saved;
    this.version = state.version;
    this.savedScopes = state.scopes;
    this.overChanges = false;
    this.untaken.clear();
    this._take(state);
  }

  _queue(act) {
    this.work = this.work.then(act).catch((error) => {
      this.whenLost(error);
      this.whenNew();
    });
    return this.work;
  }

  async _look(text, changes) {
    const answer = await ask("look", { text, changes });
    const paths = changes.map((each) => JSON.stringify(each.path));
    for (const path of paths) this.untaken.delete(path);
    for (const each of answer.not_taken) this.untaken.set(JSON.stringify(each.path), each);
    if (answer.text !== this.text) this._remember(changes.length ? paths.join() : "text");
    this._take(answer);
  }

  async _step(from, to) {
    if (from.length === 0) return;
    const answer = await ask("look", { text: from[from.length - 1], changes: [] });
    from.pop();
    to.push(this.text);
    this.lastKey = "";
    this.untaken.clear();
    this._take(answer);
  }

  _keep(changes) {
    for (const change of changes) {
      const path = JSON.stringify(change.path);
      if (!this.waiting.has(path)) this.waiting.set(path, change);
    }
  }

  _remember(key) {
    const now = Date.now();
    if (key !== this.lastKey || now - this.lastTime > SAME_CHANGE_MS) this.done.push(this.text);
    this.lastKey = key;
    this.lastTime = now;
    this.undone = [];
  }

  _take(answer) {
    this.answer = { ...NOTHING_SAID, ...answer };
    this.whenHeard();
    this.whenNew();
  }
}
