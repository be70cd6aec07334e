// A picture to point at: taps become points, drags become boxes or lines. It works with a mouse, a finger or a pen.
//
// props.picture is {src, width, height} or null. The pad's data say which kinds of shapes and how many there may be (the
// oldest one goes). props.value is the list of shapes, {kind: "point" | "box" | "scribble", points: [[x, y], ...]},
// in pixels of the picture that was uploaded: the drawing's viewBox has that size, however large it is shown.

const SVG = "http://www.w3.org/2000/svg";
const LABELS = { point: "Point", box: "Box", scribble: "Scribble" };
const HINTS = { point: "Tap it.", box: "Drag from corner to corner.", scribble: "Draw a line over it." };
const NEAREST = 4; // pixels of the screen between two points of a line
const LONGEST = 500; // points of a line

const { dataset } = element.querySelector(".pad");
const kinds = dataset.tools.split(" ");
const most = Number(dataset.most);
const stage = element.querySelector(".pad-stage");
const image = element.querySelector(".pad-picture");
const drawing = element.querySelector(".pad-drawing");
const tools = element.querySelector(".pad-tools");
const hint = element.querySelector(".pad-hint");
let tool = kinds[0];
let started = null; // the shape that is being drawn

function shapes() {
  return Array.isArray(props.value) ? props.value : [];
}

function place(event) {
  const frame = drawing.getBoundingClientRect();
  const { width, height } = props.picture;
  const x = ((event.clientX - frame.left) / frame.width) * width;
  const y = ((event.clientY - frame.top) / frame.height) * height;
  const inside = (value, length) => Math.round(Math.min(Math.max(value, 0), length - 1) * 10) / 10;
  return [inside(x, width), inside(y, height)];
}

function make(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function draw(shape) {
  const group = make("g", { class: `pad-shape pad-${shape.kind}` });
  const [[x0, y0], [x1, y1]] = [shape.points[0], shape.points[shape.points.length - 1]];
  for (const layer of ["pad-rim", "pad-core"]) {
    if (shape.kind === "box") {
      const corner = { x: Math.min(x0, x1), y: Math.min(y0, y1) };
      group.append(make("rect", { ...corner, width: Math.abs(x1 - x0), height: Math.abs(y1 - y0), class: layer }));
    } else {
      // A line without length is drawn as a dot, because its ends are round.
      const path = shape.points.length > 1 ? shape.points : [shape.points[0], shape.points[0]];
      group.append(make("polyline", { points: path.map((point) => point.join(",")).join(" "), class: layer }));
    }
  }
  return group;
}

function show() {
  const { picture } = props;
  stage.hidden = !picture;
  element.querySelector(".pad-empty").hidden = Boolean(picture);
  tools.hidden = !picture;
  if (!picture) return;
  if (image.getAttribute("src") !== picture.src) image.setAttribute("src", picture.src);
  drawing.setAttribute("viewBox", `0 0 ${picture.width} ${picture.height}`);
  drawing.classList.toggle("pad-drags", tool !== "point"); // a tap leaves the finger free to scroll
  drawing.replaceChildren(...[...shapes(), ...(started ? [started] : [])].map(draw));
  for (const button of tools.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  }
  for (const button of tools.querySelectorAll("[data-act]")) button.disabled = !shapes().length;
  hint.textContent = shapes().length && most === 1 ? "" : HINTS[tool];
}

function keep(shape) {
  const [[x0, y0], [x1, y1]] = [shape.points[0], shape.points[shape.points.length - 1]];
  if (shape.kind === "box" && (x0 === x1 || y0 === y1)) return; // no area
  const points =
    shape.kind === "box" ? [[Math.min(x0, x1), Math.min(y0, y1)], [Math.max(x0, x1), Math.max(y0, y1)]] : shape.points;
  props.value = [...shapes(), { kind: shape.kind, points }].slice(-most);
}

drawing.addEventListener("pointerdown", (event) => {
  if (!props.picture || started || (event.pointerType === "mouse" && event.button !== 0)) return;
  if (tool === "point") return; // see "click": a finger that scrolls is no tap
  event.preventDefault();
  drawing.setPointerCapture(event.pointerId);
  started = { kind: tool, points: [place(event)], last: [event.clientX, event.clientY] };
  show();
});

drawing.addEventListener("pointermove", (event) => {
  if (!started) return;
  const [x, y] = started.last;
  if (started.kind === "box") {
    started.points = [started.points[0], place(event)];
  } else if (Math.hypot(event.clientX - x, event.clientY - y) >= NEAREST && started.points.length < LONGEST) {
    started.points.push(place(event));
    started.last = [event.clientX, event.clientY];
  }
  show();
});

function finish(kept) {
  if (!started) return;
  const shape = started;
  started = null;
  if (kept) keep(shape);
  show();
}

drawing.addEventListener("pointerup", () => finish(true));
drawing.addEventListener("pointercancel", () => finish(false));

drawing.addEventListener("click", (event) => {
  if (!props.picture || tool !== "point") return;
  keep({ kind: "point", points: [place(event)] });
  show();
});

for (const kind of kinds.length > 1 ? kinds : []) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.tool = kind;
  button.textContent = LABELS[kind];
  button.addEventListener("click", () => {
    tool = kind;
    show();
  });
  tools.append(button);
}
for (const [act, left] of [["Undo", () => shapes().slice(0, -1)], ["Clear", () => []]]) {
  if (act === "Undo" && most === 1) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.act = act.toLowerCase();
  button.textContent = act;
  button.addEventListener("click", () => {
    props.value = left();
    show();
  });
  tools.append(button);
}

watch(["picture", "value"], show);
show();
