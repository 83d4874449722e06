// What the page is made of: elements from plain values. Text is only ever set as text.

/** Returns an element with properties, and children that are elements or texts. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Returns a share in per cent, with two digits that mean something. */
export function percent(share) {
  const value = 100 * share;
  if (value === 0 || value === 100) return `${value} %`;
  if (value >= 99.95) return "over 99.9 %";
  const digits = value >= 10 ? 1 : Math.min(8, 1 - Math.floor(Math.log10(value)));
  return `${value.toFixed(digits)} %`;
}

/** Returns a distance with four digits. */
export function length(distance) {
  return distance === null ? "?" : Number(distance.toPrecision(4)).toString();
}

/** Returns who is to be seen, in words. */
export function person(image) {
  const who = { "-1": "ID unknown", 0: "no ID" }[image.pid] ?? `ID ${image.person ?? image.pid}`;
  return `${who}, camera ${image.camera}`;
}

/** Returns how many strangers are as near as an image, in words. */
export function sureness(image) {
  if (image.false === undefined) return "";
  return `strangers this near: ${image.measured ? "" : "under "}${percent(image.false)}`;
}

/** Returns an image; where it cannot be shown, its text stands there. */
function picture(address, text) {
  return element("img", { src: address, alt: text, loading: "lazy", decoding: "async" });
}

/** Returns the entry of a query in the list. */
export function queryEntry(image, address, pick) {
  const precision = image.ap.map((each) => (each === null ? "does not count" : percent(each))).join(" | ");
  const button = element(
    "button",
    { type: "button", ariaPressed: "false", title: image.name },
    picture(address, ""),
    element("span", {},
      element("span", { className: "name" }, image.name),
      element("span", { className: "soft" }, person(image)),
      element("span", { className: "soft" }, precision ? `AP ${precision}` : "")),
  );
  button.addEventListener("click", () => pick(image));
  return element("li", {}, button);
}

/** Returns the image that is searched for, with what is known of it. */
export function askedView(asked, address, answers) {
  const facts = [];
  for (const { title, found } of answers) {
    if (found.error) continue;
    const right = found.positives === null ? "" : `${found.positives} images of this person among ${found.shown_of} ranked; `;
    const precision = found.ap === null ? "" : `average precision ${percent(found.ap)}`;
    if (right || precision) facts.push(element("p", { className: "soft" }, `${answers.length > 1 ? `${title}: ` : ""}${right}${precision}`));
  }
  const known = asked.kind === "image" ? "an image of yours" : `${person(asked)}, ${asked.kind}`;
  return [
    picture(address, `Searched for: ${asked.name}`),
    element("div", {}, element("h2", {}, asked.name), element("p", {}, known), ...facts),
  ];
}

const STATES = [
  { what: null, next: "What makes them alike?", text: "" },
  { what: "alike", next: "What sets them apart?", text: "Left the image searched for, right this one. Vermillion: makes them alike; blue: makes them less so." },
  { what: "apart", next: "The image again", text: "Left the image searched for, right this one. Vermillion: sets them apart; blue: brings them nearer." },
];

/** Returns a button that walks a card's picture through `STATES`, and the text under it; `why` gives the addresses. */
function explanation(shown, address, said, why) {
  let index = 0;
  const text = element("span", { className: "soft why-text", role: "status" });
  const button = element("button", { type: "button", className: "why" }, STATES[0].next);
  button.addEventListener("click", () => {
    index = (index + 1) % STATES.length;
    const { what, next, text: meaning } = STATES[index];
    button.textContent = next;
    text.textContent = meaning;
    shown.alt = what ? `${said}: ${meaning}` : said;
    shown.src = what ? why(what) : address;
  });
  // A picture does not say why it is not there; the same address, asked as a text, does.
  shown.addEventListener("error", async () => {
    if (!STATES[index].what) return;
    const answer = await fetch(shown.src).then((found) => found.json()).catch(() => ({}));
    text.textContent = answer.error ?? "That cannot be shown.";
  });
  return [button, text];
}

/** Returns the card of a found image; `why` gives the addresses of what makes it alike, or is null. */
export function resultCard(image, rank, address, pick, why) {
  const verdict = { true: "✓ same ID", false: "✗ other ID" }[image.right] ?? "";
  const said = [`rank ${rank}`, image.name, person(image), verdict.slice(2)].filter(Boolean).join(", ");
  const shown = picture(address, said);
  const button = element("button", { type: "button", title: `Search with ${image.name}` }, shown);
  button.addEventListener("click", () => pick({ ...image, kind: "gallery" }));
  const card = element("li", { className: `card ${{ true: "right", false: "wrong" }[image.right] ?? ""}` },
    button,
    element("p", { className: "figure" }, element("strong", {}, `${rank}`), element("span", {}, length(image.distance))),
    element("p", { className: "verdict" }, verdict),
    element("span", { className: "name soft", title: image.name }, image.name),
    element("span", { className: "soft" }, person(image)),
    element("span", { className: "soft", title: chances(image) }, sureness(image)),
    ...(why ? explanation(shown, address, said, why) : []),
  );
  card.dataset.distance = image.distance;
  return card;
}

/** Returns what a distance says, at length. */
function chances(image) {
  if (image.false === undefined) return "";
  const few = image.measured ? "" : " (fewer than ten pairs are as near, too few to tell a rate)";
  return `${image.measured ? "" : "Under "}${percent(image.false)} of the pairs of two people in the run's test set are as near or nearer${few}; `
    + `of the pairs of one person ${percent(image.true)} are.`;
}

/** Returns what a level of the slider means for one embedding, in words. */
export function levelText(level) {
  if (!level) return "";
  return `distance ≤ ${length(Math.max(0, level.distance))}: accepts ${percent(level.false)} of strangers and ${percent(level.true)} of pairs of one person`;
}
