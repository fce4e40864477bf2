// The check and the plan: lines as they come, and a way to end it.

import { ask } from "./preset.js";

const ENDS = {
  0: "The plan is made; nothing was written.",
  2: "The preset, the model or the data need mending first.",
  143: "Cancelled.",
};

export class Planning {
  constructor(page, toKey) {
    this.page = page;
    this.toKey = toKey;
    this.isRunning = false;
    page("plan-end").addEventListener("click", () => ask("plan/end", {}).catch(() => {}));
  }

  isOf(text) {
    return this.text === undefined || this.text === text;
  }

  async start(text) {
    const { page } = this;
    this.text = text;
    page("plan-stale").hidden = true;
    const lines = page("plan-lines");
    this.isRunning = true;
    page("plan-output").hidden = page("plan-end").hidden = false;
    page("plan").disabled = true;
    page("plan-title").textContent = "Checking the model and the data …";
    lines.replaceChildren();
    try {
      for await (const told of this._told()) {
        if (told.line === undefined) page("plan-title").textContent = ENDS[told.ended] ?? "The plan failed.";
        else this._add(lines, told.line);
      }
    } catch (error) {
      page("plan-title").textContent = error.message;
    }
    this.isRunning = false;
    page("plan-end").hidden = true;
    page("plan").disabled = false;
  }

  async *_told() {
    const response = await fetch("plan", { method: "POST", body: "{}" });
    if (!response.ok) throw new Error((await response.json()).refused);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      const parts = (rest + (value ?? "")).split("\n");
      rest = parts.pop();
      for (const part of parts) yield JSON.parse(part);
      if (done) return;
    }
  }

  _add(lines, text) {
    const [, key] = text.match(/:\d+:\d+ ([^\s:]+): /) ?? [];
    const line = document.createElement(key && this.toKey(key, false) ? "button" : "span");
    if (line.tagName === "BUTTON") {
      line.type = "button";
      line.className = "as-link";
      line.addEventListener("click", () => this.toKey(key, true));
    }
    line.textContent = text;
    const follows = lines.scrollTop + lines.clientHeight > lines.scrollHeight - 40;
    lines.append(line, "\n");
    if (follows) lines.scrollTop = lines.scrollHeight;
  }
}
