// The panel of a run's page and of a model's: what the model takes for what. From one URL it gets the pooled score
// histogram, of which every threshold makes another confusion matrix, or a matrix as the task made it. All that is shown
// is counted here, from those sums. On the signal `curves` of the page's stream it asks again, unless it shows one round.

const AGAIN_MS = 2000;              // between two questions, however fast the rounds are

const percent = (part, whole) => (whole > 0 ? `${((100 * part) / whole).toFixed(1)} %` : "–");
const whole = (number) => number.toLocaleString("en-US", { maximumFractionDigits: 2 });
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const mean = (numbers) => (numbers.length ? sum(numbers) / numbers.length : 0);

class Confusion {
  constructor(section) {
    this.section = section;
    this.url = new URL(section.dataset.confusion, location.href);
    this.isOfOneRound = this.url.searchParams.has("round");
    this.data = null;
    this.cut = null;                // the edge of a bin that the reader chose; null: the model's own
    this.client = section.querySelector("#confusion-client");
    this.of = section.querySelector("#confusion-of");
    this.slider = section.querySelector("#confusion-cut");
    this.client.addEventListener("change", () => this.load());
    this.of.addEventListener("change", () => this.take({ cut: null }));
    this.slider.addEventListener("input", () => this.moved(Number(this.slider.value)));
    this.part("own").addEventListener("click", () => this.moved(null));
    document.addEventListener("curves", () => this.again());
    this.load();
  }

  part(name) { return this.section.querySelector(`[data-part="${name}"]`); }

  // --- asking ----------------------------------------------------------------------------------------------------

  take({ cut }) {
    this.cut = cut;
    this.load();
  }

  async load() {
    const asked = new URL(this.url);
    if (this.client.value) asked.searchParams.set("client", this.client.value);
    if (this.of.value) asked.searchParams.set("of", this.of.value);
    const key = (this.asked = asked.href);
    try {
      const answer = await fetch(asked, { headers: { Accept: "application/json" } });
      if (this.asked !== key) return;             // another client was chosen meanwhile
      if (answer.status === 404 && this.client.value) return this.everybody();
      if (answer.ok) this.show(await answer.json());
    } catch {}                                    // the banner tells that the central node is gone
  }

  // The client that was chosen has not measured the newest model.
  everybody() {
    this.client.value = "";
    this.load();
  }

  again() {
    const hasNothing = this.data && this.data.round !== null && this.data.names.length === 0;
    if (this.isOfOneRound || hasNothing || this.isWaiting) return;
    this.isWaiting = setTimeout(() => {
      this.isWaiting = 0;
      this.load();
    }, AGAIN_MS);
  }

  // --- showing ---------------------------------------------------------------------------------------------------

  show(data) {
    this.data = data;
    const isThere = data.names.length > 0;
    this.section.hidden = !isThere;
    for (const link of document.querySelectorAll('a[href="#confusion"]')) link.hidden = !isThere;
    if (!isThere) return;
    this.isHistogram = data.kind === "histogram";
    const everybody = ["", `everybody (${data.clients.length})`];
    fill(this.client, [everybody, ...data.clients.map((name) => [name, name])], data.client);
    fill(this.of, data.names.map((name) => [name, name]), data.of);
    this.part("of-box").hidden = data.names.length < 2;
    for (const name of ["cut", "roc", "roc-word"]) this.part(name).hidden = !this.isHistogram;
    this.section.querySelector(".confusion-parts").classList.toggle("has-roc", this.isHistogram);
    this.part("json").href = this.asked;
    this.part("about").textContent =
      `The model of round ${data.round} on ${whole(sum(data.counts.flat()))} ${data.split} examples.`;
    if (this.isHistogram) this.prepare();
    this.draw();
  }

  get bins() { return this.data.counts[0].length; }

  get own() { return this.data.threshold?.cut ?? Math.round(this.bins / 2); }

  // What does not change with the threshold: the slider's length, the mark of the model's own, the curve.
  prepare() {
    const { threshold, classes } = this.data, [left, right] = this.data.counts;
    this.slider.max = this.bins;
    this.part("own").hidden = this.part("mark").hidden = !threshold;
    this.part("own-legend").hidden = !threshold;
    this.part("mark").style.left = `calc(.5rem + (100% - 1rem) * ${this.own / this.bins})`;
    this.part("own-told").textContent = this.ownTold();
    this.curve = ratesOf(left, right);
    this.part("line").setAttribute("points", this.curve?.map(([x, y]) => `${100 * x},${100 - 100 * y}`).join(" ") ?? "");
    this.part("area").textContent = this.curve
      ? `Area under the curve: ${area(this.curve).toFixed(4)}.` : `No curve: no ${classes[sum(left) > 0 ? 1 : 0]} here.`;
    this.part("up").textContent = `${classes[1]} found (sensitivity)`;
    this.part("right").textContent = `${classes[0]} called ${classes[1]} (1 − specificity)`;
  }

  ownTold() {
    const { threshold, classes } = this.data;
    if (!threshold) return "This model has no threshold of its own yet: nobody has measured what it is chosen on.";
    const at = told(threshold.value);
    if (!threshold.name) return `▲ ${at} is what the task fixes.`;
    const where = threshold.split === "val" ? "held-back examples (split val), which had no part in training" : `the split ${threshold.split}`;
    return `▲ ${at} is the model's own: the highest that finds ${Math.round(100 * threshold.detection_rate)} % of the ${classes[1]} among ${where}.`;
  }

  moved(cut) {
    this.cut = cut;
    this.draw();
  }

  draw() {
    const { counts, classes } = this.data, cut = Math.min(this.cut ?? this.own, this.bins);
    const matrix = this.isHistogram ? counts.map((row) => [sum(row.slice(0, cut)), sum(row.slice(cut))]) : counts;
    const recalls = matrix.map((row, i) => [row[i], sum(row)]);
    this.drawMatrix(matrix, classes, cut);
    this.drawRates(matrix, recalls);
    if (this.isHistogram) this.drawCut(cut, recalls);
  }

  drawMatrix(matrix, classes, cut) {
    const at = this.isHistogram ? ` at the threshold ${told(cut / this.bins)}` : "";
    this.part("caption").textContent = `Examples by truth (rows) and by the model's answer (columns)${at}; shares are of the row.`;
    this.part("heads").replaceChildren(head("truth"), ...classes.map((name) => head(`says ${name}`)), head("all"));
    this.part("rows").replaceChildren(...matrix.map((row, i) => {
      const cells = row.map((count, j) => cell(whole(count), percent(count, sum(row)), i === j ? "right" : ""));
      return line(classes[i], [...cells, cell(whole(sum(row)))]);
    }));
    const columns = classes.map((_, j) => sum(matrix.map((row) => row[j])));
    const right = columns.map((count, j) => cell(percent(matrix[j][j], count)));
    this.part("foot").replaceChildren(line("right, of what it says", [...right, cell(percent(sum(matrix.map((row, i) => row[i])), sum(columns)))]));
  }

  drawRates(matrix, recalls) {
    const right = sum(recalls.map(([found]) => found)), all = sum(recalls.map(([, count]) => count));
    const shares = recalls.filter(([, count]) => count > 0).map(([found, count]) => found / count);
    const rates = [["accuracy", percent(right, all)], ["balanced accuracy", shares.length ? percent(mean(shares), 1) : "–"]];
    if (matrix.length === 2) rates.unshift(["sensitivity", percent(...recalls[1])], ["specificity", percent(...recalls[0])]);
    this.part("rates").replaceChildren(...rates.map(([name, value]) => {
      const box = make("div");
      box.append(make("dt", name), make("dd"));
      box.lastElementChild.append(make("span", value, "big"));
      return box;
    }));
  }

  drawCut(cut, [[spared, negatives], [found, positives]]) {
    const { classes } = this.data, at = told(cut / this.bins);
    this.slider.value = cut;
    this.part("cut-at").textContent = at;
    this.part("own").disabled = cut === this.own;
    const rates = `finds ${percent(found, positives)} of ${classes[1]}, with ${percent(negatives - spared, negatives)} of ${classes[0]} called ${classes[1]}`;
    this.slider.setAttribute("aria-valuetext", `${at}: ${rates}${cut === this.own && this.data.threshold ? "; the model's own" : ""}`);
    const area_ = this.part("area").textContent;
    this.part("drawing").setAttribute("aria-label", `ROC curve. ${area_} At the threshold ${at} the model ${rates}.`);
    for (const [name, edge] of [["here", cut], ["own-point", this.own]]) {
      const point = this.curve?.[this.bins - edge];
      this.part(name).toggleAttribute("hidden", !point || (name === "own-point" && !this.data.threshold));
      const turned = name === "own-point" ? " rotate(45)" : "";
      if (point) this.part(name).setAttribute("transform", `translate(${100 * point[0]} ${100 - 100 * point[1]})${turned}`);
    }
  }
}

// (false positive rate, true positive rate) at every edge of the bins, from above; null without one of the two classes.
export function ratesOf(negatives, positives) {
  const all = [sum(negatives), sum(positives)], seen = [0, 0], rates = [[0, 0]];
  if (!all[0] || !all[1]) return null;
  for (let bin = negatives.length - 1; bin >= 0; bin--) {
    seen[0] += negatives[bin];
    seen[1] += positives[bin];
    rates.push([seen[0] / all[0], seen[1] / all[1]]);
  }
  return rates;
}

// By trapezoids.
export function area(rates) {
  return sum(rates.slice(1).map(([x, y], i) => ((x - rates[i][0]) * (y + rates[i][1])) / 2));
}

const told = (threshold) => threshold.toFixed(3);

function fill(select, options, chosen) {
  const known = [...select.options].map((option) => option.value + option.textContent).join();
  if (known !== options.map(([value, text]) => value + text).join()) {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  }
  select.value = chosen;
}

function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

function head(text, scope = "col") {
  const found = make("th", text);
  found.scope = scope;
  return found;
}

function line(name, cells) {
  const row = make("tr");
  row.append(head(name, "row"), ...cells);
  return row;
}

function cell(text, share = "", className = "") {
  const found = make("td", text, className);
  if (share) found.append(make("span", share));
  return found;
}

for (const section of document.querySelectorAll("[data-confusion]")) new Confusion(section);
