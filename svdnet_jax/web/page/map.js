// A map of embeddings on a canvas: draws, finds the point under the pointer, moves by the keyboard.

const CAMERAS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c00", "#444444"];
const NOBODY = "#b5bac4";
const REACH = 12; // pixels from a point that still mean it

/** Returns the color of a camera by its place among all cameras. */
export function cameraColor(place) {
  return place < CAMERAS.length ? CAMERAS[place] : `hsl(${(place * 137.5) % 360} 60% 42%)`;
}

function personColor(pid) {
  return pid > 0 ? `hsl(${(pid * 137.5) % 360} 62% 45%)` : NOBODY;
}

/**
 * Draws points on a canvas and says which one is meant.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {object} points Columns as the server sends them.
 * @param {function} shown Told the point under the pointer or the keyboard, as {kind, row, pid, person, camera}, the person's text where there is one.
 * @param {function} picked Told the point to search with.
 */
export function createMap(canvas, points, shown, picked) {
  const count = points.x.length;
  const cameras = [...new Set(points.cameras)].sort((a, b) => a - b);
  const place = new Map(cameras.map((camera, index) => [camera, index]));
  const view = { zoom: 1, x: 0.5, y: 0.5 };
  let colorBy = "pid";
  let asked = null; // {kind, row, pid}
  let current = -1;
  let drag = null;
  const base = document.createElement("canvas");

  const kindOf = (index) => (index < points.queries ? "query" : "gallery");
  const about = (index) => ({ kind: kindOf(index), row: points.rows[index], pid: points.pids[index], person: points.people[points.pids[index]], camera: points.cameras[index] });

  function scale() {
    const { width, height } = canvas.getBoundingClientRect();
    const size = Math.min(width, height) * 0.94 * view.zoom;
    return { size, left: width / 2 - view.x * size, top: height / 2 + view.y * size };
  }

  function at(index, { size, left, top }) {
    return [left + (points.x[index] / points.grid) * size, top - (points.y[index] / points.grid) * size];
  }

  /** Draws all points aside; what follows the pointer is drawn over them by `draw`. */
  function paint() {
    const { width, height } = canvas.getBoundingClientRect();
    if (!width) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = base.width = Math.round(width * ratio);
    canvas.height = base.height = Math.round(height * ratio);
    const context = base.getContext("2d");
    context.scale(ratio, ratio);
    const placed = scale();
    const radius = count > 8000 ? 1.5 : 2.5;
    const isAsked = (index) => asked?.pid > 0 && asked.pid === points.pids[index];
    const order = Array.from({ length: count }, (_, index) => count - 1 - index);
    // The person searched for comes last, over all others, which are paler.
    for (const index of [...order.filter((each) => !isAsked(each)), ...order.filter(isAsked)]) {
      const [x, y] = at(index, placed);
      context.globalAlpha = asked?.pid > 0 && colorBy === "pid" && !isAsked(index) ? 0.4 : 1;
      context.fillStyle = colorBy === "camera" ? cameraColor(place.get(points.cameras[index])) : personColor(points.pids[index]);
      if (index < points.queries) context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
      else {
        context.beginPath();
        context.arc(x, y, radius, 0, 7);
        context.fill();
      }
    }
    context.globalAlpha = 1;
    if (asked) for (let index = 0; index < count; index++) {
      const own = asked.row === points.rows[index] && asked.kind === kindOf(index);
      if (own || (asked.pid > 0 && asked.pid === points.pids[index])) ring(context, at(index, placed), own ? 8 : 5, own ? 3 : 1.5);
    }
    draw();
  }

  function draw() {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(base, 0, 0);
    const ratio = window.devicePixelRatio || 1;
    context.scale(ratio, ratio);
    if (current >= 0) ring(context, at(current, scale()), 10, 2, "#0072b2");
  }

  function ring(context, [x, y], radius, width, color = "#1d2129") {
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.lineWidth = width;
    context.strokeStyle = color;
    context.stroke();
  }

  function nearestTo(x, y) {
    const placed = scale();
    let best = REACH * REACH;
    let found = -1;
    for (let index = 0; index < count; index++) {
      const [px, py] = at(index, placed);
      const away = (px - x) ** 2 + (py - y) ** 2;
      if (away < best) [best, found] = [away, index];
    }
    return found;
  }

  function show(index) {
    if (index === current) return;
    current = index;
    shown(index < 0 ? null : about(index));
    draw();
  }

  /** Moves to the nearest point in a direction: away along it counts once, across it twice. */
  function step(dx, dy) {
    if (current < 0) return show(askedIndex() < 0 ? 0 : askedIndex());
    const placed = scale();
    const [x, y] = at(current, placed);
    let best = Infinity;
    let found = current;
    for (let index = 0; index < count; index++) {
      const [px, py] = at(index, placed);
      const along = (px - x) * dx + (py - y) * dy;
      const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along > 1 && along >= across && along + 2 * across < best) [best, found] = [along + 2 * across, index];
    }
    show(found);
    keepInView();
  }

  function askedIndex() {
    if (!asked) return -1;
    for (let index = 0; index < count; index++) if (asked.row === points.rows[index] && asked.kind === kindOf(index)) return index;
    return -1;
  }

  function keepInView() {
    const [x, y] = at(current, scale());
    const { width, height } = canvas.getBoundingClientRect();
    if (x > 0 && y > 0 && x < width && y < height) return;
    [view.x, view.y] = [points.x[current] / points.grid, points.y[current] / points.grid];
    paint();
  }

  function zoom(factor) {
    view.zoom = Math.min(64, Math.max(1, view.zoom * factor));
    if (view.zoom === 1) [view.x, view.y] = [0.5, 0.5];
    else if (current >= 0) [view.x, view.y] = [points.x[current] / points.grid, points.y[current] / points.grid];
    paint();
  }

  const inside = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    drag = { from: inside(event), x: view.x, y: view.y, moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = inside(event);
    if (!drag || !event.buttons) return show(nearestTo(x, y));
    const { size } = scale();
    drag.moved ||= Math.hypot(x - drag.from[0], y - drag.from[1]) > 4;
    if (!drag.moved) return;
    [view.x, view.y] = [drag.x - (x - drag.from[0]) / size, drag.y + (y - drag.from[1]) / size];
    paint();
  });
  canvas.addEventListener("pointerup", (event) => {
    const moved = drag?.moved;
    drag = null;
    const index = moved ? -1 : nearestTo(...inside(event));
    if (index >= 0) picked(about(index));
  });
  canvas.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in arrows) step(...arrows[event.key]);
    else if (event.key === "Enter" && current >= 0) picked(about(current));
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") zoom(0);
    else return;
    event.preventDefault();
  });
  const watcher = new ResizeObserver(paint);
  watcher.observe(canvas);

  return {
    cameras,
    color(by) { colorBy = by; paint(); },
    ask(image) { asked = image; paint(); },
    end() { watcher.disconnect(); },
  };
}
