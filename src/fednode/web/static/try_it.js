// The page "Try it": what is drawn, or a picture from a file, goes to the chosen model, and what the model makes of it is
// shown; at once, and again whenever the run has a newer model. The sheet itself is draw.js, pictures from files are
// picture.js: the task says which of the two it takes. Nothing is kept, here or at the central node.

import { SIDE, Sheet, paint } from "./draw.js";
import { PictureView, hottest, paintPixels } from "./picture.js";

const PAUSE_MS = 60;                // between two questions while a stroke is drawn
const SETTLE_MS = 700;              // of quiet; then the guess is told to screen readers
const AGAIN_MS = 1500;              // after a question that the central node did not answer
const PATH_LENGTH = 12;             // rounds of which is told what their models said

const at = (id) => document.getElementById(id);
const LONG_LABEL = 3;               // letters; longer ones are set smaller
const percent = (share) => (share > 0.9995 ? "> 99.9 %" : `${(100 * share).toFixed(1)} %`);

class TryIt {
  constructor() {
    this.model = at("model");
    this.picture = null;            // {pixels, file, name}: bytes as the model takes them, or the file that holds them; null: nothing yet
    this.isAsking = false;
    this.isStale = false;           // something changed since the question that is under way
    this.path = [];                 // what the models of earlier rounds said of this picture
    this.sheet = new Sheet(at("sheet"), at("cell"), {
      changed: () => this.drawn(), say: (text) => { at("cell-told").textContent = text; },
    });
    this.view = new PictureView(
      { view: at("view"), heat: at("heat"), box: at("drop"), input: at("file"), how: at("drop-how") },
      { chosen: (file) => this.brought(file), refused: (problem) => this.showProblem(problem) },
    );
    at("heat-on").addEventListener("change", () => { at("heat").hidden = !at("heat-on").checked; });
    at("clear").addEventListener("click", () => this.sheet.clear());
    at("undo").addEventListener("click", () => this.sheet.undo());
    this.model.addEventListener("change", () => this.choose());
    at("live").addEventListener("options", (event) => this.heard(JSON.parse(event.detail.data)));
    new MutationObserver(() => this.repaint()).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
    this.choose();
  }

  get choice() { return JSON.parse(this.model.selectedOptions[0].dataset.choice); }

  // Another model: its labels, its samples, its answer to what is drawn, where it takes such a picture.
  choose() {
    history.replaceState(null, "", `?${this.model.value}`);
    this.path = [];
    this.showInput();
    this.showLabels();
    this.showSamples();
    this.moveOn();
    this.warm();
  }

  // The first question of all loads the task's framework, which takes seconds: asked before anybody draws.
  warm() {
    if (!canBeTried(this.choice)) return;
    question(this.choice, { pixels: new Uint8Array(sizeOf(this.choice)) }).catch(() => {});
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
    const pixels = this.sheet.picture();
    this.asked(pixels && { pixels });
  }

  brought(file) {
    this.asked({ file, pixels: null, name: file.name });
    this.view.showFile(file).then((isShown) => {
      if (this.picture?.file !== file) return;
      this.picture.isHidden = !isShown;
      if (!isShown && this.picture.pixels) this.view.showPixels(this.picture.pixels, this.choice.picture, file.name);
    });
  }

  asked(picture) {
    this.picture = picture;
    this.path = [];
    if (takesFiles(this.choice)) this.showNothing();        // a stroke of a pen only changes the answer
    this.showProblem(problemOf(this.choice));
    this.repaint();
    this.ask();
  }

  repaint() {
    const { choice, picture } = this;
    if (!takesFiles(choice)) this.sheet.redraw();
    const put = takesFiles(choice) ? (canvas, pixels) => paintPixels(canvas, pixels, choice.picture) : paint;
    at("seen").parentElement.hidden = takesFiles(choice) && !picture?.pixels;
    put(at("seen"), picture?.pixels ?? []);
    for (const canvas of at("samples").querySelectorAll("canvas")) put(canvas, canvas.pixels);
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
      if (asked !== this.model.value || (picture.file && picture !== this.picture)) return PAUSE_MS;
      this.showProblem(answer.ok ? null : body);
      if (answer.ok && this.picture) this.showAnswer(choice, body, picture);
      if (!answer.ok && picture.file) this.showNothing("no answer");
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

  // A sheet to draw on, or a place for files. What the other model got stays, where this one takes it too.
  showInput() {
    const { notice } = this.choice, isFile = takesFiles(this.choice), wasFile = !at("file-box").hidden;
    for (const id of ["file-box", "how-file"]) at(id).hidden = !isFile;
    for (const id of ["sheet-box", "how-sheet", "sheet-how"]) at(id).hidden = isFile;
    at("notice").hidden = !notice;
    at("notice").textContent = notice;
    if (isFile !== wasFile) {
      this.picture = null;
      this.view.clear();
      this.sheet.clear();
    } else if (isFile && this.picture?.pixels?.length !== sizeOf(this.choice)) {
      if (this.picture?.file) this.picture.pixels = null;
      else this.view.clear(), (this.picture = null);
    }
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
    const { choice } = this, url = `/api/v1/predictions/samples/${encodeURIComponent(choice.task)}?run=${choice.run}`;
    const answer = choice.problem ? null : await fetch(url);
    if (choice.run !== this.choice.run) return;
    const { source, samples } = answer?.ok ? await answer.json() : { source: "", samples: [] };
    at("samples-source").textContent = source && `Or take one of these, ${source}:`;
    at("samples").replaceChildren(...samples.map((sample, i) => this.sampleButton(sample, i + 1)));
    this.repaint();
  }

  sampleButton({ label, pixels }, number) {
    const button = at("sample-button").content.firstElementChild.cloneNode(true);
    button.querySelector("canvas").pixels = pixels;
    const { choice } = this;
    if (!takesFiles(choice)) {
      button.setAttribute("aria-label", `Show a test image of a ${label}`);
      button.addEventListener("click", () => this.sheet.show(Uint8Array.from(pixels)));
      return button;
    }
    const name = `${label}, sample ${number}`;
    button.setAttribute("aria-label", name);
    button.classList.add("is-file");
    button.lastElementChild.hidden = false;
    button.lastElementChild.textContent = label;
    button.addEventListener("click", () => {
      this.view.clear();
      this.view.showPixels(pixels, choice.picture, name);
      this.asked({ pixels: Uint8Array.from(pixels), name });
    });
    return button;
  }

  showAnswer(choice, body, picture) {
    const shares = body.probabilities[0], verdict = body.labels.indexOf(body.verdicts[0]);
    const next = shares.map((_, i) => i).filter((i) => i !== verdict).sort((one, other) => shares[other] - shares[one])[0];
    const best = `${choice.labels[verdict]}`;
    [...at("labels").rows].forEach((row, i) => {
      row.querySelector(".share").style.width = `${100 * shares[i]}%`;
      row.lastElementChild.textContent = percent(shares[i]);
      row.classList.toggle("is-best", i === verdict);
    });
    at("guess").textContent = best;
    at("guess").classList.toggle("is-word", best.length > LONG_LABEL);
    at("sure").textContent = percent(shares[verdict]);
    at("seen-by").textContent = `the model of round ${choice.round}`;
    at("cut").textContent = thresholdTold(choice, body);
    const where = takesFiles(choice) ? this.showPicture(choice, body, picture, best) : "";
    if (picture === this.picture) this.remember(choice.round, best, shares[verdict]);
    const words = body.threshold === null ? "Most likely" : "By its own threshold";
    this.tell(`${words} ${best}, ${percent(shares[verdict])}; then ${choice.labels[next]}, ${percent(shares[next])}.${where}`, best);
  }

  // What the model got of a file, and where it looked. Returns that in words.
  showPicture(choice, body, picture, best) {
    if (body.pixels) {
      picture.pixels = Uint8Array.from(body.pixels);
      if (picture.isHidden) this.view.showPixels(picture.pixels, choice.picture, picture.name);
      this.repaint();
    }
    const map = body.heat_maps?.[0] ?? null, place = map && hottest(map);
    at("heat-box").hidden = !map;
    at("heat-of").textContent = best;
    this.view.showHeat(map, at("heat-on").checked);
    return place ? ` What speaks most for it lies ${place}.` : "";
  }

  showNothing(why = "") {
    for (const row of at("labels").rows) {
      row.querySelector(".share").style.width = "0";
      row.lastElementChild.textContent = "–";
      row.classList.remove("is-best");
    }
    at("guess").textContent = "?";
    at("sure").textContent = "";
    at("cut").textContent = "";
    at("heat-box").hidden = true;
    this.view.showHeat(null);
    const nothing = takesFiles(this.choice) ? "no picture yet" : "nothing is drawn yet";
    at("seen-by").textContent = why || (this.picture ? "no model to ask" : nothing);
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
    const news = text && `${best} ${this.picture?.pixels}`;
    if (!text) at("told").textContent = this.told = "";
    if (news === this.told) return;
    this.telling = setTimeout(() => {
      this.told = news;
      at("told").textContent = text;
    }, SETTLE_MS);
  }
}

// A file is sent as it is, once: later models get what the first answer said it holds.
function question(choice, { file, pixels }) {
  const url = `/api/v1/models/${choice.model_sha256}/predictions`;
  if (file && !pixels) {
    return fetch(`${url}/file?explain=true`, {
      method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file,
    });
  }
  return fetch(url, {
    method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ inputs: [Array.from(pixels)], explain: takesFiles(choice) }),
  });
}

function sizeOf({ picture }) {
  return picture ? picture.height * picture.width * picture.channels : 0;
}

function thresholdTold({ labels }, { threshold, awaits_threshold: isOpen }) {
  if (threshold !== null) return `It says ${labels[1]} where the probability of that is ${percent(threshold)} or more: this model's own threshold.`;
  return isOpen ? "This model's own threshold is measured in the next round; until then the more probable answer is given." : "";
}

function canBeTried(choice) {
  return choice.model_sha256 !== null && problemOf(choice) === null;
}

// Of the two that a task may have said, the sheet comes first: a digit is drawn sooner than photographed.
function takesFiles({ reads_files: isRead, picture }) {
  return Boolean(isRead && !picture?.is_drawn);
}

function problemOf(choice) {
  const { picture } = choice;
  if (choice.problem || takesFiles(choice) || isSheet(picture)) return choice.problem;
  return {
    message: `This page draws grey pictures of ${SIDE} x ${SIDE}; a model of ${choice.task} takes others.`,
    fix: `Send it pictures over the API: POST /api/v1/models/${choice.model_sha256}/predictions`,
  };
}

function isSheet({ height, width, channels }) {
  return height === SIDE && width === SIDE && channels === 1;
}

if (at("model")) new TryIt();
else at("live").addEventListener("options", () => location.reload());     // the first run of all
