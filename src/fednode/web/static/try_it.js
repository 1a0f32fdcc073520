// The page "Try it": what is drawn goes to the chosen model, and what the model makes of it is shown; at once, and again
// whenever the run has a newer model. The sheet itself is draw.js. Nothing is kept, here or at the central node.

import { SIDE, Sheet, paint } from "./draw.js";

const PAUSE_MS = 60;                // between two questions while a stroke is drawn
const SETTLE_MS = 700;              // of quiet; then the guess is told to screen readers
const AGAIN_MS = 1500;              // after a question that the central node did not answer
const PATH_LENGTH = 12;             // rounds of which is told what their models said

const at = (id) => document.getElementById(id);
const percent = (share) => (share > 0.9995 ? "> 99.9 %" : `${(100 * share).toFixed(1)} %`);

class TryIt {
  constructor() {
    this.model = at("model");
    this.picture = null;            // 28 x 28 bytes; null: nothing is drawn
    this.isAsking = false;
    this.isStale = false;           // something changed since the question that is under way
    this.path = [];                 // what the models of earlier rounds said of this picture
    this.sheet = new Sheet(at("sheet"), at("cell"), {
      changed: () => this.drawn(), say: (text) => { at("cell-told").textContent = text; },
    });
    at("clear").addEventListener("click", () => this.sheet.clear());
    at("undo").addEventListener("click", () => this.sheet.undo());
    this.model.addEventListener("change", () => this.choose());
    at("live").addEventListener("options", (event) => this.heard(JSON.parse(event.detail.data)));
    new MutationObserver(() => this.repaint()).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
    this.choose();
  }

  get choice() { return JSON.parse(this.model.selectedOptions[0].dataset.choice); }

  // Another model: its labels, its samples, its answer to what is drawn.
  choose() {
    history.replaceState(null, "", `?${this.model.value}`);
    this.path = [];
    this.showLabels();
    this.showSamples();
    this.moveOn();
    this.warm();
  }

  // The first question of all loads the task's framework, which takes seconds: asked before anybody draws.
  warm() {
    if (canBeTried(this.choice)) question(this.choice, new Uint8Array(SIDE * SIDE)).catch(() => {});
  }

  // Runs of which something changed. The sheet stays as it is.
  heard(options) {
    for (const { value, text, choice } of options) {
      const known = [...this.model.options].find((option) => option.value === value);
      const option = known ?? new Option(text, value);
      if (!known) this.model.prepend(option);
      option.textContent = text;
      option.dataset.choice = JSON.stringify(choice);
      if (option.selected) this.moveOn();
    }
  }

  drawn() {
    this.picture = this.sheet.picture();
    this.path = [];
    this.repaint();
    this.ask();
  }

  repaint() {
    this.sheet.redraw();
    paint(at("seen"), this.picture ?? []);
    for (const canvas of at("samples").querySelectorAll("canvas")) paint(canvas, canvas.pixels);
  }

  // --- questions -----------------------------------------------------------------------------------------------

  moveOn() {
    this.showModel();
    this.ask();
  }

  // One question at a time; what changes meanwhile is asked next.
  async ask() {
    const { choice, picture } = this;
    this.isStale = this.isAsking;
    if (!picture || !canBeTried(choice)) return this.showNothing();
    if (this.isAsking) return;
    this.isAsking = true;
    at("answer").ariaBusy = "true";
    if (!at("sure").textContent) at("seen-by").textContent = "asking the model …";
    const pause = await this.answer(choice, picture, this.model.value);
    await new Promise((done) => setTimeout(done, pause));
    this.isAsking = false;
    at("answer").ariaBusy = "false";
    if (this.isStale) this.ask();
  }

  // Shows the answer. Returns how long to wait before the next question.
  async answer(choice, picture, asked) {
    try {
      const answer = await question(choice, picture);
      const body = await answer.json();
      if (asked !== this.model.value) return PAUSE_MS;
      this.showProblem(answer.ok ? null : body);
      if (answer.ok && this.picture) this.showAnswer(choice, body.probabilities[0], picture);
      this.isStale ||= answer.status === 503;
      return answer.status === 503 ? AGAIN_MS : PAUSE_MS;
    } catch {                       // it is not there: the banner says so, and we ask again
      this.isStale = true;
      return AGAIN_MS;
    }
  }

  // --- what is shown -------------------------------------------------------------------------------------------

  showModel() {
    const { choice } = this;
    at("run-link").href = `/runs/${choice.run}`;
    at("run-link").textContent = `Run #${choice.run}`;
    at("round").textContent = choice.round === null ? "no model yet" : `round ${choice.round}`;
    at("following").hidden = !choice.is_live;
    this.showProblem(problemOf(choice));
  }

  showProblem(problem) {
    at("problem").hidden = !problem;
    at("problem-text").textContent = problem?.message ?? "";
    at("problem-fix").textContent = problem?.fix ?? "";
  }

  showLabels() {
    const rows = this.choice.labels.map((label) => {
      const row = at("label-row").content.firstElementChild.cloneNode(true);
      row.querySelector("th").textContent = label;
      return row;
    });
    at("labels").replaceChildren(...rows);
    at("knows").textContent = this.choice.labels.length < 10 ? `It only knows ${this.choice.labels.join(" and ")}.` : "";
  }

  async showSamples() {
    const { choice } = this, answer = choice.problem ? null : await fetch(`/api/v1/predictions/samples/${choice.task}`);
    if (choice.run !== this.choice.run) return;
    const { source, samples } = answer?.ok ? await answer.json() : { source: "", samples: [] };
    at("samples-source").textContent = source && `Or take one of these, ${source}:`;
    at("samples").replaceChildren(...samples.map((sample) => this.sampleButton(sample)));
    this.repaint();
  }

  sampleButton({ label, pixels }) {
    const button = at("sample-button").content.firstElementChild.cloneNode(true);
    button.setAttribute("aria-label", `Show a test image of a ${label}`);
    button.querySelector("canvas").pixels = pixels;
    button.addEventListener("click", () => this.sheet.show(Uint8Array.from(pixels)));
    return button;
  }

  showAnswer(choice, shares, picture) {
    const order = shares.map((_, i) => i).sort((one, other) => shares[other] - shares[one]);
    const best = `${choice.labels[order[0]]}`;
    [...at("labels").rows].forEach((row, i) => {
      row.querySelector(".share").style.width = `${100 * shares[i]}%`;
      row.lastElementChild.textContent = percent(shares[i]);
      row.classList.toggle("is-best", i === order[0]);
    });
    at("guess").textContent = best;
    at("sure").textContent = percent(shares[order[0]]);
    at("seen-by").textContent = `the model of round ${choice.round}`;
    if (picture === this.picture) this.remember(choice.round, best, shares[order[0]]);
    this.tell(`Most likely ${best}, ${percent(shares[order[0]])}; then ${choice.labels[order[1]]}, ${percent(shares[order[1]])}.`, best);
  }

  showNothing() {
    for (const row of at("labels").rows) {
      row.querySelector(".share").style.width = "0";
      row.lastElementChild.textContent = "–";
      row.classList.remove("is-best");
    }
    at("guess").textContent = "?";
    at("sure").textContent = "";
    at("seen-by").textContent = this.picture ? "no model to ask" : "nothing is drawn yet";
    this.remember(null);
    this.tell("");
  }

  // What each round's model said of the same picture: one sees it learn.
  remember(round, best, share) {
    if (round === null) this.path = [];
    else if (this.path.at(-1)?.round !== round) this.path = [...this.path, { round, best, share }].slice(-PATH_LENGTH);
    at("path-box").hidden = this.path.length < 2;
    at("path").replaceChildren(...this.path.map((step) => {
      const item = at("path-step").content.firstElementChild.cloneNode(true);
      [`round ${step.round}`, step.best, percent(step.share)].forEach((text, i) => { item.children[i].textContent = text; });
      return item;
    }));
  }

  // To screen readers, when the hand rests; newer models only where they think otherwise.
  tell(text, best) {
    clearTimeout(this.telling);
    const news = text && `${best} ${this.picture}`;
    if (!text) at("told").textContent = this.told = "";
    if (news === this.told) return;
    this.telling = setTimeout(() => {
      this.told = news;
      at("told").textContent = text;
    }, SETTLE_MS);
  }
}

function question(choice, picture) {
  return fetch(`/api/v1/models/${choice.model_sha256}/predictions`, {
    method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ inputs: [Array.from(picture)] }),
  });
}

function canBeTried(choice) {
  return choice.model_sha256 !== null && problemOf(choice) === null;
}

function problemOf(choice) {
  const { picture } = choice;
  if (choice.problem || (picture.height === SIDE && picture.width === SIDE && picture.channels === 1)) return choice.problem;
  return {
    message: `This page draws grey pictures of ${SIDE} x ${SIDE}; a model of ${choice.task} takes others.`,
    fix: `Send it pictures over the API: POST /api/v1/models/${choice.model_sha256}/predictions`,
  };
}

if (at("model")) new TryIt();
else at("live").addEventListener("options", () => location.reload());     // the first run of all
