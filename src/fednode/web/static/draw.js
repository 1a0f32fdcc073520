// A sheet of paper for a digit: mouse, touch, pen and keyboard draw on it, and `picture` is what a model gets of it.
// What is done with the picture is the page's business: see try_it.js. Nothing is sent from here.

export const SIDE = 28;             // of a picture, in pixels
const BOX = 20;                     // MNIST scaled every digit into 20 x 20 and put its centre of mass into the middle
const PEN = 1 / 13;                 // width of the pen, of the sheet's side: about two pixels of the picture
const CELLS = 14;                   // the keyboard moves on a grid of 14 x 14
const RIM = 2;                      // a dot is a little larger than its cell
const FAINT = 0.05;                 // ink that the eye does not see

export class Sheet {
  // `cursor`: the element that shows the keyboard's cell; `say`: tells a screen reader.
  // `changed` is called after every bit of ink.
  constructor(canvas, cursor, { changed, say }) {
    Object.assign(this, { canvas, cursor, changed, say });
    this.pen = canvas.getContext("2d", { willReadFrequently: true });
    this.strokes = [];              // {points: [[x, y], ...]} of the canvas, {rubbed: [column, row]} or {pixels}
    this.stroke = null;             // the one that is being drawn
    this.cell = [Math.floor(CELLS / 2), 3];
    this.isPenDown = false;         // of the keyboard
    this._listen();
  }

  clear() {
    this.strokes = [];
    this._lift();
    this._done("The sheet is empty.");
  }

  undo() {
    this.strokes.pop();
    this._lift();
    this._done("Taken back.");
  }

  // A ready picture instead of what was drawn; one may draw on it.
  show(pixels) {
    this.strokes = [{ pixels }];
    this._lift();
    this._done();
  }

  // The grey picture, 28 x 28 bytes with 255 = ink; null where there is no ink.
  picture() {
    if (this.strokes.length === 1 && this.strokes[0].pixels) return this.strokes[0].pixels;
    const { width: side } = this.canvas;
    const rgba = this.pen.getImageData(0, 0, side, side).data;
    return likeMnist(Float32Array.from({ length: side * side }, (_, i) => rgba[4 * i + 3] / 255), side);
  }

  redraw() {
    const { pen, canvas } = this;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.strokeStyle = getComputedStyle(canvas).color;
    pen.lineWidth = PEN * canvas.width;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of this.strokes) this._put(stroke);
  }

  _put({ points, rubbed, pixels }) {
    const { pen, canvas } = this, size = canvas.width / CELLS;
    if (pixels) {
      const picture = paint(document.createElement("canvas"), pixels, pen.strokeStyle);
      return pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    }
    if (rubbed) return pen.clearRect(rubbed[0] * size - RIM, rubbed[1] * size - RIM, size + 2 * RIM, size + 2 * RIM);
    pen.beginPath();
    pen.moveTo(points[0][0] - 0.01, points[0][1]);      // a line of no length would not be drawn
    for (const point of points) pen.lineTo(...point);
    pen.stroke();
  }

  _done(told) {
    this.redraw();
    this.changed();
    if (told) this.say(told);
  }

  _lift() {
    this.stroke = null;
    this.isPenDown = false;
    this.cursor.classList.remove("is-down");
  }

  _listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this._press(event));
    canvas.addEventListener("pointermove", (event) => this._move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => this._release());
    canvas.addEventListener("keydown", (event) => this._key(event));
    canvas.addEventListener("focus", () => this._showCursor(canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => this._showCursor(false));
  }

  // --- mouse, touch, pen -----------------------------------------------------------------------------------

  _press(event) {
    if (!event.isPrimary || event.button !== 0) return;
    this._lift();
    this._showCursor(false);
    this.canvas.setPointerCapture(event.pointerId);
    this.stroke = { points: [this._place(event)], pointer: event.pointerId };
    this.strokes.push(this.stroke);
    this.redraw();
    this.changed();
  }

  _move(event) {
    if (this.stroke?.pointer !== event.pointerId) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    this.stroke.points.push(...(passed.length ? passed : [event]).map((each) => this._place(each)));
    this.redraw();
    this.changed();
  }

  _release() {
    if (this.stroke?.pointer === undefined) return;
    this.stroke = null;
  }

  _place(event) {
    const box = this.canvas.getBoundingClientRect(), scale = this.canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  // --- keyboard --------------------------------------------------------------------------------------------

  _key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.altKey || event.metaKey || (event.ctrlKey && event.key !== "z")) return;
    if (way) this._step(way);
    else if (event.key === " ") this._dot();
    else if (event.key === "Enter") this._lower();
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (event.ctrlKey) this.undo();
    else return;
    event.preventDefault();
  }

  _step([right, down]) {
    this.cell = [limited(this.cell[0] + right), limited(this.cell[1] + down)];
    this._showCursor(true);
    if (this.isPenDown) {
      this.stroke.points.push(this._middle());
      this._done();
    }
    this.say(this._where());
  }

  _dot() {
    this._lift();
    this.strokes.push(this._hasInk() ? { rubbed: [...this.cell] } : { points: [this._middle()] });
    this._showCursor(true);
    this._done();
    this.say(this._where());
  }

  _lower() {
    const wasDown = this.isPenDown;
    this._lift();
    this.isPenDown = !wasDown;
    this.cursor.classList.toggle("is-down", this.isPenDown);
    if (wasDown) return this.say("Pen up.");
    this.stroke = { points: [this._middle()] };
    this.strokes.push(this.stroke);
    this._showCursor(true);
    this._done("Pen down: the arrow keys draw.");
  }

  _where() {
    return `Row ${this.cell[1] + 1}, column ${this.cell[0] + 1}${this._hasInk() ? ", ink" : ""}.`;
  }

  _middle() {
    return this.cell.map((place) => (place + 0.5) * (this.canvas.width / CELLS));
  }

  _hasInk() {
    const [x, y] = this._middle();
    return this.pen.getImageData(x, y, 1, 1).data[3] > 127;
  }

  _showCursor(isShown) {
    this.cursor.hidden = !isShown;
    this.cursor.style.left = `${(100 * this.cell[0]) / CELLS}%`;
    this.cursor.style.top = `${(100 * this.cell[1]) / CELLS}%`;
  }
}

// Puts a picture on a canvas of its own size: ink in `colour`, paper transparent.
export function paint(canvas, pixels, colour = getComputedStyle(canvas).color) {
  canvas.width = canvas.height = SIDE;
  const pen = canvas.getContext("2d"), image = new ImageData(SIDE, SIDE);
  pixels.forEach((value, i) => { image.data[4 * i + 3] = value; });
  pen.putImageData(image, 0, 0);
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = colour;
  pen.fillRect(0, 0, SIDE, SIDE);
  return canvas;
}

// As MNIST was made: the ink's bounding box is scaled to 20 x 20, its centre of mass put into the middle of 28 x 28.
// `ink`: side * side numbers from 0 to 1, row by row. Returns bytes, or null where there is no ink.
export function likeMnist(ink, side) {
  const seen = extent(ink, side);
  if (!seen) return null;
  const step = Math.max(seen.right - seen.left, seen.bottom - seen.top) / BOX;      // sheet pixels in one of the picture
  const [left, top] = centreOfMass(ink, side).map((middle) => middle - (SIDE / 2) * step);
  return Uint8Array.from({ length: SIDE * SIDE }, (_, i) => {
    const column = i % SIDE, row = Math.floor(i / SIDE);
    return Math.round(255 * Math.min(1, meanOver(ink, side, left + column * step, top + row * step, step)));
  });
}

function extent(ink, side) {
  let left = side, top = side, right = 0, bottom = 0;
  ink.forEach((value, i) => {
    if (value < FAINT) return;
    const x = i % side, y = Math.floor(i / side);
    left = Math.min(left, x), right = Math.max(right, x + 1);
    top = Math.min(top, y), bottom = Math.max(bottom, y + 1);
  });
  return right > left ? { left, top, right, bottom } : null;
}

function centreOfMass(ink, side) {
  let mass = 0, x = 0, y = 0;
  ink.forEach((value, i) => {
    mass += value;
    x += value * ((i % side) + 0.5);
    y += value * (Math.floor(i / side) + 0.5);
  });
  return [x / mass, y / mass];
}

// The mean of a square of the sheet whose edges lie between pixels; beyond the sheet there is no ink.
function meanOver(ink, side, left, top, size) {
  let sum = 0;
  for (let y = Math.max(0, Math.floor(top)); y < Math.min(side, top + size); y++) {
    const high = Math.min(y + 1, top + size) - Math.max(y, top);
    for (let x = Math.max(0, Math.floor(left)); x < Math.min(side, left + size); x++) {
      sum += ink[y * side + x] * high * (Math.min(x + 1, left + size) - Math.max(x, left));
    }
  }
  return sum / (size * size);
}

function limited(place) {
  return Math.max(0, Math.min(CELLS - 1, place));
}
