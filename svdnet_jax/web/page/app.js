// What the page does: keeps what was chosen, asks the server, and hands the answers to cards.js and map.js.

import { askedView, element, levelText, percent, queryEntry, resultCard } from "./cards.js";
import { cameraColor, createMap } from "./map.js";

const PAGE = 60; // queries read at a time
const WHERE = (id) => document.getElementById(id);

const state = {
  about: null,
  sources: new Map(), // id -> what the server says of an embedding
  asked: null, // {kind, row, name, pid, camera} or, of an image from elsewhere, {kind, name, features, url}
  listed: [], // entries of the list of queries
  total: 0,
  found: [], // answers on display, one for each side
  maps: new Map(), // id -> the map of an embedding
};

/** Asks the server; a refusal becomes an Error with the server's words. */
async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is svdnet serve still running?");
  }
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(answer.error ?? `the server answered ${response.status}`);
  return answer;
}

function say(text) {
  WHERE("status").textContent = text;
}

/** Returns a function that gives up what it was doing when it is called again. */
function latest(work) {
  let control = null;
  return async (...given) => {
    control?.abort();
    const own = (control = new AbortController());
    try {
      await work(own.signal, ...given);
    } catch (error) {
      if (error.name !== "AbortError" && control === own) say(error.message);
    }
  };
}

const sides = () => [WHERE("left").value, WHERE("right").value].filter(Boolean);
const titleOf = (id) => state.about.sources.find((source) => source.id === id).title;
const address = (kind, row) => `${state.about.images}${kind}/${row}`;
const addressOf = (asked) => asked.url ?? address(asked.kind, asked.row);

async function sourceOf(id, signal) {
  if (!state.sources.has(id)) state.sources.set(id, await ask(`/api/source?source=${encodeURIComponent(id)}`, { signal }));
  return state.sources.get(id);
}

// The list of queries

const list = latest(async (signal, start = 0) => {
  const [left, right = ""] = sides();
  const parts = new URLSearchParams({
    source: left, beside: right, order: WHERE("order").value, text: WHERE("find").value, start, count: PAGE,
  });
  const answer = await ask(`/api/queries?${parts}`, { signal });
  const entries = answer.entries.map((entry) => ({ ...entry, kind: answer.set }));
  state.listed = start ? [...state.listed, ...entries] : entries;
  state.total = answer.total;
  WHERE("listed").textContent = `${answer.set === "query" ? "Queries" : "Images"} (${answer.total})`;
  const made = entries.map((entry) => queryEntry(entry, address(entry.kind, entry.row), () => search(entry)));
  if (start) WHERE("queries").append(...made);
  else WHERE("queries").replaceChildren(...made);
  WHERE("more").hidden = state.listed.length >= state.total;
  mark();
  if (!state.asked && state.listed.length) search(state.listed[0]);
});

/** Shows in the list which query is searched for. */
function mark() {
  [...WHERE("queries").children].forEach((item, index) => {
    const entry = state.listed[index];
    item.firstChild.ariaPressed = String(state.asked?.kind === entry.kind && state.asked.row === entry.row);
  });
}

function move(by) {
  const index = state.listed.findIndex((entry) => state.asked?.kind === entry.kind && state.asked.row === entry.row);
  const entry = state.listed[index < 0 ? 0 : index + by];
  if (!entry) return;
  search(entry);
  WHERE("queries").children[state.listed.indexOf(entry)].scrollIntoView({ block: "nearest", inline: "nearest" });
}

// The search

function cameras() {
  const boxes = [...WHERE("cameras").querySelectorAll("input")];
  const chosen = boxes.filter((box) => box.checked).map((box) => Number(box.value));
  return chosen.length === boxes.length ? null : chosen;
}

const look = latest(async (signal) => {
  const asked = state.asked;
  if (!asked) return;
  const found = await Promise.all(sides().map(async (id) => {
    const source = state.about.sources.find((each) => each.id === id);
    if (asked.kind === "image" && !source.upload) {
      return { id, found: { error: "The weights of this embedding are not kept, so an image from elsewhere cannot be searched for by it." } };
    }
    const question = {
      source: id, kind: asked.kind, row: asked.row ?? 0, features: asked.features?.[id] ?? [],
      cameras: cameras(), k: Number(WHERE("count").value), everything: WHERE("everything").checked,
    };
    try {
      const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question), signal };
      return { id, found: await ask("/api/search", options) };
    } catch (error) {
      if (error.name === "AbortError") throw error;
      return { id, found: { error: error.message } };
    }
  }));
  state.found = found.map((each) => ({ ...each, title: titleOf(each.id) }));
  show();
});

function search(image) {
  if (state.asked?.url && state.asked.url !== image.url) URL.revokeObjectURL(state.asked.url);
  state.asked = image;
  mark();
  for (const map of state.maps.values()) map.ask(image);
  return look();
}

function show() {
  WHERE("asked").replaceChildren(...askedView(state.asked, addressOf(state.asked), state.found));
  WHERE("results").replaceChildren(...state.found.map(({ id, title, found }) => {
    const source = state.sources.get(id);
    const facts = Object.entries(source.results).map(([name, value]) => `${name} ${percent(value)}`);
    const head = [element("h2", {}, title), element("p", { className: "soft" }, [source.metric, ...facts].join(" · "))];
    const panel = element("article", { className: "panel" }, ...head, element("p", { className: "level soft" }));
    panel.dataset.source = id;
    if (found.error) panel.append(element("p", { className: "error" }, found.error));
    else if (!found.results.length) panel.append(element("p", {}, "No image is left to show: choose more cameras."));
    else {
      const cards = found.results.map((image, index) => resultCard(image, index + 1, address("gallery", image.row), search, whyOf(id, image.row)));
      panel.append(element("ol", { className: "cards" }, ...cards));
    }
    return panel;
  }));
  threshold();
  const counts = state.found.map(({ found }) => found.error ?? found.results.length);
  say(`${counts.join(" and ")} nearest to ${state.asked.name}`);
}

/** Returns the addresses of what makes the image searched for and a found one alike; null where no network can say. */
function whyOf(id, row) {
  const { kind, row: own } = state.asked;
  if (kind === "image" || !state.about.sources.find((source) => source.id === id).upload) return null;
  return (what) => `${state.about.alike}${encodeURIComponent(id)}/${kind}/${own}/${row}/${what}`;
}

/** Shows which images are within the threshold; nothing is asked for again. */
function threshold() {
  const index = Number(WHERE("level").value);
  const texts = [];
  for (const panel of WHERE("results").children) {
    const source = state.sources.get(panel.dataset.source);
    const level = source.levels[index];
    const cards = [...panel.querySelectorAll(".card")];
    cards.forEach((card) => card.classList.toggle("beyond", Boolean(level) && Number(card.dataset.distance) > level.distance));
    const within = cards.filter((card) => !card.classList.contains("beyond")).length;
    panel.querySelector(".level").textContent = source.levels.length
      ? level ? `${levelText(level)}; ${within} of ${cards.length} shown are within` : "no threshold"
      : `How sure a distance is is not known here. ${source.note}`;
    texts.push(level ? `accept ${percent(level.false)} of strangers` : "none: everything is shown alike");
  }
  WHERE("rate").textContent = texts[0] ?? "";
  WHERE("level").setAttribute("aria-valuetext", texts[0] ?? "");
}

// Images from elsewhere

const upload = latest(async (signal, file) => {
  if (file.size > state.about.most_uploaded) {
    throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; at most ${(state.about.most_uploaded / 1e6).toFixed(1)} are taken. Cut out the person, or make it smaller.`);
  }
  say(`Looking at ${file.name} ... (the first image takes some seconds longer)`);
  const answer = await ask("/api/embed", {
    method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file, signal,
  });
  await search({ kind: "image", name: file.name || "pasted image", features: answer.features, url: URL.createObjectURL(file) });
});

// What is chosen above

const choose = latest(async (signal) => {
  const beside = WHERE("right").value !== "";
  for (const option of WHERE("order").querySelectorAll("[data-beside]")) option.disabled = option.hidden = !beside;
  if (!beside && WHERE("order").selectedOptions[0].disabled) WHERE("order").value = "worst";
  say("Reading the embeddings ...");
  const [left] = await Promise.all(sides().map((id) => sourceOf(id, signal)));
  say("");
  WHERE("level").max = left.levels.length;
  WHERE("level").disabled = !left.levels.length;
  WHERE("everything-label").hidden = !left.queries;
  const known = [...WHERE("cameras").querySelectorAll("input")].map((box) => Number(box.value));
  if (known.join() !== left.cameras.join()) {
    const boxes = left.cameras.map((camera) => element("label", {},
      element("input", { type: "checkbox", value: String(camera), checked: true }), ` ${camera}`));
    WHERE("cameras").replaceChildren(element("legend", {}, "Cameras"), ...boxes);
    // At first the threshold stands at one stranger in a thousand, or the least that can be told.
    const start = left.levels.findIndex((level) => level.false > 1e-3);
    WHERE("level").value = left.levels.length ? Math.max(0, start - 1) : 0;
  }
  await Promise.all([list(), look()]);
  if (WHERE("maps").open) await maps();
});

const maps = latest(async (signal) => {
  const wanted = sides();
  for (const map of state.maps.values()) map.end();
  state.maps.clear();
  WHERE("canvases").replaceChildren(element("p", {}, "Computing the map ..."));
  const answers = await Promise.all(wanted.map((id) => ask(`/api/map?source=${encodeURIComponent(id)}`, { signal })));
  WHERE("canvases").replaceChildren(...answers.map((points, index) => mapView(wanted[index], points)));
  color();
});

function mapView(id, points) {
  const [x, y] = points.share.map(percent);
  const canvas = element("canvas", { tabIndex: 0, role: "application", "aria-label": `Map of ${titleOf(id)}: arrows move, Enter searches` });
  const under = element("div", { className: "under", role: "status" });
  const shown = (image) => under.replaceChildren(...(image === null ? [] : [
    element("img", { src: address(image.kind, image.row), alt: "" }),
    element("span", {}, `${image.kind} image of ${image.pid > 0 ? `person ${image.person ?? image.pid}` : "nobody in particular"}, camera ${image.camera}`),
  ]));
  const map = createMap(canvas, points, shown, (image) => search({ ...image, name: `${image.kind} image ${image.row}` }));
  map.ask(state.asked);
  state.maps.set(id, map);
  const title = `${titleOf(id)}: across ${x} of the variance, upwards ${y}`;
  return element("div", {}, element("p", { className: "soft" }, title), canvas, under);
}

function color() {
  const by = WHERE("color").value;
  for (const map of state.maps.values()) map.color(by);
  const all = by === "camera" ? [...state.maps.values()][0]?.cameras ?? [] : [];
  WHERE("legend").replaceChildren(...all.map((camera, index) => {
    const patch = element("i");
    patch.style.background = cameraColor(index);
    return element("span", {}, patch, `${camera}`);
  }));
}

function listen() {
  for (const id of ["left", "right"]) WHERE(id).addEventListener("change", () => choose());
  for (const id of ["cameras", "count", "everything"]) WHERE(id).addEventListener("change", () => look());
  WHERE("order").addEventListener("change", () => list());
  WHERE("find").addEventListener("input", () => list());
  WHERE("more").addEventListener("click", () => list(state.listed.length));
  WHERE("level").addEventListener("input", threshold);
  WHERE("color").addEventListener("change", color);
  WHERE("maps").addEventListener("toggle", () => { if (WHERE("maps").open) maps(); });
  WHERE("file").addEventListener("change", (event) => { if (event.target.files[0]) upload(event.target.files[0]); });
  document.addEventListener("dragover", (event) => { event.preventDefault(); WHERE("drop").classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) WHERE("drop").classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    WHERE("drop").classList.remove("over");
    if (event.dataTransfer.files[0]) upload(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => { if (event.clipboardData.files[0]) upload(event.clipboardData.files[0]); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, canvas")) return;
    if (event.key === "j") move(1);
    if (event.key === "k") move(-1);
  });
}

async function begin() {
  try {
    state.about = await ask("/api/about");
  } catch (error) {
    return say(error.message);
  }
  document.title = state.about.title;
  WHERE("title").textContent = state.about.title;
  const options = () => state.about.sources.map(({ id, title }) => element("option", { value: id }, title));
  WHERE("left").replaceChildren(...options());
  WHERE("right").replaceChildren(element("option", { value: "" }, "nothing"), ...options());
  WHERE("left").value = state.about.left;
  WHERE("right").value = state.about.right;
  WHERE("drop").hidden = !state.about.sources.some((source) => source.upload);
  listen();
  await choose();
}

begin();
