// Draws every element with `data-curves="URL"`: the global model thick, clients thin, hover brings one forward; of many
// clients the band from worst to best. The URL answers {name, names, rounds, step, pooled, clients, band} or, to compare
// runs, {name, rounds, series}. The untrained model of round 0 would squeeze all that follows into a line: it is left out
// of longer runs unless the reader asks for it. Drag to zoom, double click to see all again. On the signal `curves` of the page's stream only newer rounds are fetched.

const HEIGHT = 300;
const MANY_ROUNDS = 4; // from so many on, round 0 is left out
const COLOURS = ["#e8590c", "#1098ad", "#9c36b5", "#2b8a3e", "#e03131", "#5f3dc4", "#0b7285", "#a61e4d", "#5c940d", "#d9480f", "#364fc7", "#862e9c"];
const DASHES = [[], [10, 5], [3, 4], [14, 4, 3, 4], [6, 3]]; // runs differ by more than their colour

class Curves {
  constructor(element) {
    this.element = element;
    this.url = element.dataset.curves;
    this.name = element.dataset.name ?? null;
    this.data = null;
    this.hasZero = null; // whether round 0 is drawn; null: the reader has not said
    this.busy = false;
    this.again = false;
    element.replaceChildren(make("div", "tabs"), make("div", "plot"));
    new ResizeObserver(() => this.chart?.setSize(this.size())).observe(element);
    document.addEventListener("fednode:theme", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTimeout(() => this.draw()));
    this.load();
  }

  size() {
    return { width: Math.max(260, this.element.querySelector(".plot").clientWidth), height: HEIGHT };
  }

  async load(from = 0) {
    if (this.busy) return void (this.again = true);
    this.busy = true;
    try {
      const url = new URL(this.url, location.href);
      if (this.name) url.searchParams.set("name", this.name);
      if (from > 0) url.searchParams.set("from_round", from);
      const answer = await fetch(url, { headers: { Accept: "application/json" } });
      if (answer.ok) this.take(await answer.json(), from);
    } catch {
      this.again = false; // the banner tells that the central node is gone; its next signal draws
    } finally {
      this.busy = false;
    }
    if (this.again) {
      this.again = false;
      setTimeout(() => this.refresh(), 250);
    }
  }

  refresh() {
    const known = this.data?.rounds ?? [];
    this.load(this.data?.series ? 0 : (known[Math.max(0, known.length - 2)] ?? 0));
  }

  take(found, from) {
    const isSame = this.data && found.name === this.data.name && found.step === this.data.step;
    if (from > 0 && !isSame) return void this.load();
    this.data = from > 0 ? merged(this.data, found) : found;
    this.name = found.name;
    this.tabs();
    this.draw();
  }

  tabs() {
    const row = this.element.querySelector(".tabs");
    const names = this.data.names ?? [this.data.name];
    const wanted = this.data.rounds[0] === 0 ? [...names, ZERO] : names;
    if ([...row.children].map((button) => button.textContent).join() !== wanted.join()) {
      row.replaceChildren(...names.map((name) => this.tab(name, () => this.show(name))));
      if (wanted !== names) row.append(this.tab(ZERO, () => this.showZero(!this.isZeroDrawn())));
    }
    for (const button of row.children) {
      const isOn = button.textContent === ZERO ? this.isZeroDrawn() : button.textContent === this.name;
      button.setAttribute("aria-pressed", isOn);
    }
  }

  tab(name, onClick) {
    const button = make("button", "btn btn-sm btn-quiet", name);
    button.type = "button";
    button.addEventListener("click", onClick);
    return button;
  }

  show(name) {
    this.name = name;
    this.load();
  }

  showZero(isWanted) {
    this.hasZero = isWanted;
    this.tabs();
    this.draw();
  }

  isZeroDrawn() {
    return this.hasZero ?? this.data.rounds.length < MANY_ROUNDS;
  }

  draw() {
    const plot = this.element.querySelector(".plot");
    if (!this.data || this.data.rounds.length === 0) {
      if (!this.chart) plot.replaceChildren(make("p", "empty", "The first scores come with the first round of training."));
      return;
    }
    const [series, all, bands] = layout(this.data);
    const values = this.data.rounds[0] === 0 && !this.isZeroDrawn() ? all.map((column) => column.slice(1)) : all;
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", told(this.data));
    const key = JSON.stringify([this.data.name, series.map((one) => one.label), theme()]);
    if (this.chart && this.key === key) return void this.chart.setData(values);
    this.chart?.destroy();
    this.key = key;
    plot.replaceChildren();
    this.chart = new uPlot({ ...this.size(), ...options(this.data.name, bands), series }, values, plot);
  }
}

const ZERO = "round 0";

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

const theme = () => document.documentElement.dataset.bsTheme;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Newer rounds over what is known: a round that comes again replaces what was known of it.
function merged(old, found) {
  const kept = old.rounds.filter((round) => round < (found.rounds[0] ?? Infinity)).length;
  const join = (a, b) => [...(a ?? Array(old.rounds.length).fill(null)).slice(0, kept), ...b];
  const before = new Map(old.clients.map((client) => [client.name, client.values]));
  return {
    ...found,
    rounds: join(old.rounds, found.rounds),
    pooled: join(old.pooled, found.pooled),
    clients: found.clients.map((client) => ({ ...client, values: join(before.get(client.name), client.values) })),
    band: found.band && { ...found.band, min: join(old.band?.min, found.band.min), max: join(old.band?.max, found.band.max) },
  };
}

function layout(data) {
  const round = { label: "round", value: (chart, v) => v ?? chart.data[0].at(-1) };
  if (data.series) {
    const lines = data.series.map((one, i) => ({ ...line(one.name, COLOURS[i % COLOURS.length], 2.5), dash: DASHES[i % DASHES.length] }));
    return [[round, ...lines], [data.rounds, ...data.series.map((one) => one.values)], []];
  }
  const clients = data.clients.map((one, i) => line(one.name, COLOURS[i % COLOURS.length], 1.25));
  const series = [round, line("global model", css("--curve-global"), 3.5), ...clients];
  const values = [data.rounds, data.pooled, ...data.clients.map((one) => one.values)];
  if (!data.band) return [series, values, []];
  const edge = css("--curve-band");
  const label = `of ${data.band.num_clients} clients`;
  series.push(line(`highest ${label}`, edge, 1), line(`lowest ${label}`, edge, 1));
  values.push(data.band.max, data.band.min);
  return [series, values, [{ series: [series.length - 2, series.length - 1], fill: css("--curve-fill") }]];
}

function line(label, stroke, width) {
  return { label, stroke, width, spanGaps: true, points: { size: 5 }, value: valueText };
}

// In the legend: the value under the cursor, else the last one.
function valueText(chart, value, index, place) {
  const shown = place == null ? chart.data[index].findLast((one) => one != null) : value;
  return shown == null ? "" : shown.toFixed(4);
}

function options(name, bands) {
  const axis = { stroke: css("--bs-body-color"), grid: { stroke: css("--curve-grid") }, ticks: { stroke: css("--curve-grid") } };
  return {
    bands,
    cursor: { focus: { prox: 24 } },
    focus: { alpha: 0.25 },
    legend: { live: true },
    scales: { x: { time: false } },
    axes: [
      { ...axis, label: "round", labelSize: 20, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] },
      { ...axis, label: name, labelSize: 20, size: 64 },
    ],
  };
}

function told(data) {
  const last = (values) => values.findLast((value) => value != null)?.toFixed(4) ?? "nothing yet";
  const lines = data.series ?? [{ name: "global model", values: data.pooled }, ...data.clients];
  return `${data.name} over ${data.rounds.length} rounds. Last: ` + lines.map((one) => `${one.name} ${last(one.values)}`).join(", ");
}

const drawn = new Map();

// Also what the page's stream has put in place of another one.
function drawAll() {
  for (const element of document.querySelectorAll("[data-curves]")) {
    if (!element.querySelector(".plot")) drawn.set(element, new Curves(element));
  }
}

document.addEventListener("htmx:after:swap", drawAll);
document.addEventListener("curves", () => drawn.forEach((curves, element) => element.isConnected && curves.refresh()));
drawAll();
