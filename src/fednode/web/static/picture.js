// A picture from a file: dropped anywhere on the page or chosen, shown as the model gets it, with a heat map over it.
// What is done with the picture is the page's business: see try_it.js. Nothing is sent from here.

const MAX_BYTES = 16 * 2 ** 20;     // what the central node takes
const DEPTH_OF_PNG = 24;            // offset of the byte that tells how many bits a value has
const PLACES = [
  ["at the upper left", "at the top", "at the upper right"],
  ["at the left", "in the middle", "at the right"],
  ["at the lower left", "at the bottom", "at the lower right"],
];

export class PictureView {
  // `chosen` is called with every file that a person brings, `refused` where it need not be sent at all.
  constructor({ view, heat, box, input, how }, { chosen, refused }) {
    Object.assign(this, { view, heat, box, input, how, chosen, refused });
    input.addEventListener("change", () => this._take(input.files[0]));
    for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => this._dropped(event));
    document.addEventListener("dragleave", () => box.classList.remove("is-over"));
  }

  clear() {
    this.showHeat(null);
    this.input.value = "";
    this.how.hidden = false;
    this.view.setAttribute("aria-label", "No picture yet");
    this._pen().clearRect(0, 0, this.view.width, this.view.height);
  }

  // The file's own picture, stretched to the model's square. False: the browser cannot show it as it is meant.
  async showFile(file) {
    this.showHeat(null);
    this._name(file.name);
    this._pen().clearRect(0, 0, this.view.width, this.view.height);
    if (await isDeep(file)) return false;
    try {
      const bitmap = await createImageBitmap(file);
      this._pen().drawImage(bitmap, 0, 0, this.view.width, this.view.height);
      return true;
    } catch {
      return false;
    }
  }

  // What the model got, larger.
  showPixels(pixels, shape, name) {
    this._name(name);
    this._pen().drawImage(paintPixels(document.createElement("canvas"), pixels, shape), 0, 0, this.view.width, this.view.height);
  }

  // Rows of numbers from 0 to 1, stretched over the picture; null: none.
  showHeat(map, isShown = true) {
    this.heat.hidden = !map || !isShown;
    if (!map) return;
    Object.assign(this.heat, { height: map.length, width: map[0].length });
    const image = new ImageData(map[0].length, map.length);
    map.flat().forEach((value, i) => image.data.set([255, 210 * (1 - value), 30 * (1 - value), 190 * value], 4 * i));
    this.heat.getContext("2d").putImageData(image, 0, 0);
  }

  _pen() { return this.view.getContext("2d"); }

  _name(name) {
    this.how.hidden = true;
    this.view.setAttribute("aria-label", name);
  }

  _dropped(event) {
    if (this.box.closest("section").hidden || ![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    this.box.classList.toggle("is-over", event.type === "dragover");
    if (event.type === "drop") this._take(event.dataTransfer.files[0]);
  }

  _take(file) {
    if (!file) return;
    if (file.size <= MAX_BYTES) return this.chosen(file);
    this.refused({ message: `${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MB; at most 16 are taken`, fix: "save it smaller" });
  }
}

// A picture of 16 bits is often one of 12, which only the task's own reading gets right: a browser shows it black.
async function isDeep(file) {
  const head = new Uint8Array(await file.slice(0, DEPTH_OF_PNG + 1).arrayBuffer());
  return head[0] === 0x89 && head[DEPTH_OF_PNG] === 16;
}

// Puts bytes on a canvas of their own size: grey ones, or red, green and blue of each pixel.
export function paintPixels(canvas, pixels, { height, width, channels }) {
  Object.assign(canvas, { height, width });
  const image = new ImageData(width, height), [green, blue] = channels === 3 ? [1, 2] : [0, 0];
  for (let i = 0; i < height * width; i++) {
    const at = i * channels;
    image.data.set([pixels[at], pixels[at + green], pixels[at + blue], 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// In words: where a heat map is highest; empty where it is nowhere.
export function hottest(map) {
  const highest = Math.max(...map.flat());
  if (!(highest > 0)) return "";
  const row = map.findIndex((values) => values.includes(highest)), column = map[row].indexOf(highest);
  return PLACES[Math.floor((3 * row) / map.length)][Math.floor((3 * column) / map[row].length)];
}
