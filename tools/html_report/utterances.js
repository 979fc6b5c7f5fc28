/* The page: results and charts, then a split's utterances as a list, and the chosen one with its audio. */

const content = JSON.parse(document.getElementById("content").textContent);
const [PIXELS_A_SECOND, ROW] = [100, 26];
const TAGS = { S: "mark", D: "del", I: "ins" };
const $ = (id) => document.getElementById(id);

for (const one of content.experiments) {
  $("results").append(make("div", { className: "experiment" },
    make("h2", {}, one.name),
    make("div", { className: "soft" }, one.facts.join(" · ")),
    ...one.tables.flatMap(({ rows, title, note }) => [makeTable(rows, title), make("p", { className: "note" }, note)]),
    make("p", { className: "note" }, one.surroundings),
    make("details", {}, make("summary", {}, "Commands"), make("pre", {}, one.commands.join("\n")))));
}
$("results").append(...content.notes.map((note) => make("p", { className: "note warning" }, note)));
$("plots").append(...content.plots.map(makeChart));

/* State of the list. `active` is the setting whose errors it shows; `shown` are the settings beside each other. */
let split, active, shown, order, chosen;
let errors; // of each setting and utterance; null if it was not decoded
let lengths, totals; // of each utterance: units of the reference, errors in all settings together
const { compare } = new Intl.Collator();
let sorting = { key: "errors", descending: true };
let drawn; // what the pane on the right shows
let choicesOpen = false;

const units = (text) => (split.metric === "cer" ? Array.from(text) : text.split(" ").filter(Boolean));
const percent = (rate) => (rate === null ? "–" : rate.toFixed(2) + " %");

/* Name of a setting, with the parts of its model that the settings `among` do not share. */
function settingName(number, among = [...split.settings.keys()]) {
  const { name, model } = split.settings[number];
  const differing = model.filter((part, i) => among.some((other) => split.settings[other].model[i] !== part));
  return [name, ...differing].join(" · ");
}

const settingTitle = (number) => `${settingName(number)}: ${percent(split.settings[number].rate)}`;

/* Units and alignment of a hypothesis; null if the utterance was not decoded. */
function hypothesis(setting, utterance) {
  const found = split.hypotheses[setting][utterance];
  const reference = units(split.references[utterance]);
  if (found === null) return null;
  if (found === 0) return { units: reference, letters: "=".repeat(reference.length) };
  return { units: units(found[0]), letters: found[1] };
}

const countErrors = (found) => (found === null ? null : found === 0 ? 0 : found[1].replaceAll("=", "").length);

/* Columns of the list: heading, explanation, value to sort by, and how to show it if not as it is. */
const COLUMNS = [
  { key: "heard", name: "♪", hint: "audio", value: (u) => +(u in split.audio), show: (heard) => "♪".repeat(heard) },
  { key: "id", name: "id", hint: "id", value: (u) => split.ids[u] },
  { key: "speaker", name: "speaker", hint: "speaker", value: (u) => split.speakers[u] },
  { key: "seconds", name: "s", hint: "length", number: true, value: (u) => split.seconds[u], show: tenths },
  { key: "errors", name: "errors", hint: "number of errors", number: true, value: (u) => errors[active][u] },
  { key: "rate", name: "%", hint: "error rate", number: true, value: rate, show: (percents) => percents.toFixed(0) },
  { key: "more", name: "±", hint: "", number: true, value: more, show: signed },
  { key: "text", name: "reference", hint: "reference", value: (u) => split.references[u] },
];

function tenths(number) {
  return number.toFixed(1);
}

function rate(utterance) {
  const count = errors[active][utterance];
  return count === null || !lengths[utterance] ? null : 100 * count / lengths[utterance];
}

function more(utterance) {
  const [count, baseline] = [errors[active][utterance], errors[0][utterance]];
  return count === null || baseline === null ? null : count - baseline;
}

function signed(number) {
  return number > 0 ? `+${number}` : number < 0 ? `−${-number}` : "";
}

function openSplit(number) {
  split = content.splits[number];
  lengths = split.references.map((reference) => units(reference).length);
  errors = split.hypotheses.map((ofSetting) => ofSetting.map(countErrors));
  totals = split.ids.map((_, u) => errors.reduce((sum, ofSetting) => sum + ofSetting[u], 0));
  active = 0;
  shown = new Set(split.settings.slice(0, 6).keys());
  $("setting").replaceChildren(...split.settings.map((_, i) => make("option", { value: i }, settingTitle(i))));
  chosen = undefined;
  openSetting(0);
}

function openSetting(number) {
  active = number;
  shown.add(number);
  $("setting").value = number;
  arrange();
  showUtterance();
}

/* Filter and sort the list, and keep the chosen utterance, or choose the first. */
function arrange() {
  const query = $("query").value.trim().toLowerCase();
  const texts = (u) => [split.ids[u], split.speakers[u], split.references[u], split.hypotheses[active][u]?.[0] ?? ""];
  const matches = (u) => texts(u).some((text) => text.toLowerCase().includes(query));
  const { value } = COLUMNS.find((column) => column.key === sorting.key);
  const values = split.ids.map((_, u) => value(u));
  const difference = (a, b) => (typeof values[a] === "string" ? compare(values[a], values[b]) : values[a] - values[b]);
  const sign = sorting.descending ? -1 : 1;
  order = [...split.ids.keys()].filter((u) => (!query || matches(u)) && (!$("heard").checked || u in split.audio));
  const unknownLast = (a, b) => (values[a] === null) - (values[b] === null);
  order.sort((a, b) => unknownLast(a, b) || sign * difference(a, b) || totals[b] - totals[a] || a - b);
  $("count").textContent = `${order.length} of ${split.ids.length} utterances`;
  $("columns").replaceChildren(...COLUMNS.map((column) => {
    const pressed = column.key === sorting.key;
    const hint = column.key === "more" ? `errors more than with ${settingName(0)}` : column.hint;
    const arrow = pressed ? (sorting.descending ? " ↓" : " ↑") : "";
    const look = { title: `sort by ${hint}`, className: column.number ? "number" : "", "aria-pressed": pressed };
    const button = make("button", { type: "button", ...look }, column.name + arrow);
    button.onclick = () => {
      const falling = column.number || column.key === "heard";
      sorting = { key: column.key, descending: pressed ? !sorting.descending : falling };
      chosen = undefined;
      arrange();
    };
    return button;
  }));
  $("list").scrollTop = 0;
  choose(order.includes(chosen) ? chosen : order[0]);
}

/* Only the rows in view are in the document, so that thousands of utterances are no burden. */
function drawRows() {
  const first = Math.max(0, Math.floor($("list").scrollTop / ROW) - 10);
  const last = first + Math.ceil($("list").clientHeight / ROW) + 20;
  $("rows").style.height = `${order.length * ROW}px`;
  $("rows").replaceChildren(...order.slice(first, last).map((u, i) => {
    const row = make("div", {
      id: `row-${u}`, className: "row", role: "option", style: `top: ${(first + i) * ROW}px`,
      "aria-selected": u === chosen, "aria-posinset": first + i + 1, "aria-setsize": order.length,
    }, ...COLUMNS.map((column) => makeCell(column, column.value(u))));
    row.onclick = () => choose(u);
    return row;
  }));
  $("list").setAttribute("aria-activedescendant", chosen === undefined ? "" : `row-${chosen}`);
}

function makeCell({ key, number, show = String }, value) {
  return make("span", { className: number ? "number" : key, dir: "auto" }, value === null ? "–" : show(value));
}

function choose(utterance) {
  chosen = utterance;
  const place = order.indexOf(utterance) * ROW;
  const list = $("list");
  if (place < list.scrollTop) list.scrollTop = place;
  if (place + ROW > list.scrollTop + list.clientHeight) list.scrollTop = place + ROW - list.clientHeight;
  drawRows();
  showUtterance();
}

function showUtterance() {
  const state = [split.name, active, chosen].join(" ");
  if (state === drawn) return;
  drawn = state;
  if (chosen === undefined) {
    $("utterance").replaceChildren(make("p", { className: "soft" }, "No utterance matches the filter."));
    return;
  }
  const facts = [split.speakers[chosen], split.seconds[chosen] === null ? "" : `${split.seconds[chosen].toFixed(2)} s`];
  $("utterance").replaceChildren(
    make("h2", { dir: "auto" }, split.ids[chosen]),
    make("div", { className: "soft", dir: "auto" }, facts.filter(Boolean).join(" · ")),
    chosen in split.audio ? makePlayer(split.audio[chosen]) : make("p", { className: "note player" }, noAudio()),
    make("div", { id: "alignment" }),
    make("div", { className: "key" },
      make("mark", {}, "substituted"), make("del", {}, "deleted"), make("ins", {}, "inserted"),
      " ↑ ↓ choose, space plays; a click on a word or the spectrogram plays from there"),
    makeChoices());
  drawAlignment();
}

function noAudio() {
  const { audio, longest } = content;
  return `No audio here: the page has that of ${audio} utterances with the most errors in all settings together, ` +
    `and of ${audio} others at random, up to ${longest} s long. ` +
    `tools/report.py --html … --audio ${Math.max(100, audio * 10)} embeds more.`;
}

/* Spectrogram with the words of the active setting, audio, and a cursor over both. */
function makePlayer({ ogg, words }) {
  const seconds = split.seconds[chosen];
  const at = (time) => `${100 * time / seconds}%`;
  const audio = make("audio", { controls: true, src: `data:audio/ogg;base64,${ogg}` });
  const canvas = make("canvas", { role: "img", "aria-label": "spectrogram, 0 to 8 kHz" });
  const cursor = make("div", { className: "cursor", hidden: true });
  const width = `min-width: ${Math.ceil(seconds * PIXELS_A_SECOND)}px`;
  const strip = make("div", { className: "strip", style: width }, canvas, cursor);
  for (const tick of roundTicks(0, seconds, Math.min(40, Math.max(4, seconds * 2))).slice(1)) {
    strip.append(make("span", { className: "tick", style: `left: ${at(tick)}` }, `${tick} s`));
  }
  const play = (time) => { audio.currentTime = Math.max(0, time); audio.play(); };
  const scale = Math.max(PIXELS_A_SECOND, $("utterance").clientWidth / seconds);
  const ends = [0, 0, 0]; // in pixels, of the last word on each line of words
  const letters = hypothesis(active, chosen)?.letters.replaceAll("D", "") ?? "";
  (words[active] ?? []).forEach(([word, start, end, confidence], i, all) => {
    const left = start * scale;
    const line = Math.max(0, ends.findIndex((taken) => taken <= left));
    ends[line] = left + 34 + 7 * word.length;
    const tag = (all.length === letters.length && TAGS[letters[i]]) || "span";
    const button = make("button", {
      type: "button",
      className: confidence < 0.5 ? "word unsure" : "word",
      style: `left: ${at(start)}; top: ${line * 18}px`,
      title: `${word}: ${start.toFixed(2)} to ${end.toFixed(2)} s, confidence ${confidence.toFixed(2)}`,
    }, make(tag, { dir: "auto" }, word), make("small", {}, confidence.toFixed(2)));
    button.onclick = () => play(start - 0.1);
    const band = `left: ${at(start)}; width: ${at(Math.min(end, seconds) - start)}; --confidence: ${confidence}`;
    strip.append(make("div", { className: "band", style: band }), button);
  });
  canvas.onclick = (event) => play(seconds * event.offsetX / canvas.clientWidth);
  const follow = () => {
    cursor.hidden = false;
    cursor.style.left = at(Math.min(audio.currentTime, seconds));
    const [sound, place] = [strip.parentElement, cursor.offsetLeft];
    if (place < sound.scrollLeft || place > sound.scrollLeft + sound.clientWidth) sound.scrollLeft = place - 40;
    if (!audio.paused && audio.isConnected) requestAnimationFrame(follow);
  };
  audio.onplay = audio.onseeked = follow;
  decodeAudio(ogg).then((samples) => {
    canvas.levels = levels(samples);
    if (canvas.isConnected) drawSpectrogram(canvas, canvas.levels);
  });
  return make("div", { className: "player" }, make("div", { className: "sound", tabIndex: -1 }, strip), audio);
}

/* A table for each line of text: the reference, and under it the hypotheses that are aligned with it. */
function drawAlignment() {
  if (chosen === undefined) return;
  const reference = units(split.references[chosen]);
  const settings = [...shown].sort((a, b) => a - b);
  const rows = settings.map((setting) => alignedCells(reference, hypothesis(setting, chosen)));
  const texts = [reference.map((unit) => ({ "=": unit })), ...rows];
  const wide = (character) => (character > "\u1100" ? 2 : 1);
  const width = ([kind, text]) => Array.from(text).reduce((sum, c) => sum + wide(c), kind === "I" ? 2 : 1);
  const columns = []; // pairs of a place in the reference and a kind of cell, "I" for what is inserted before it
  for (let place = 0; place <= reference.length; place++) {
    if (rows.some((row) => row[place]?.I)) columns.push([place, "I"]);
    if (place < reference.length) columns.push([place, ""]);
  }
  const names = settings.map((setting) => settingName(setting, settings));
  const taken = 80 + 7.6 * Math.max(9, ...names.map((name) => name.length)); // pixels of the first columns
  const room = Math.max(20, ($("utterance").clientWidth - taken) / 8.1); // in characters
  const lines = [[]];
  let used = 0;
  for (const column of columns) {
    const needed = Math.max(...texts.map((row) => width(cellOf(row, column))));
    if (used + needed > room && lines.at(-1).length) {
      lines.push([]);
      used = 0;
    }
    lines.at(-1).push(column);
    used += needed;
  }
  const dir = /[\u0590-\u08ff\ufb1d-\ufefc]/.test(split.references[chosen]) ? "rtl" : "ltr";
  const title = "show the words of this setting over the spectrogram";
  $("alignment").replaceChildren(...lines.map((line) => make("table", { className: `aligned ${split.metric}`, dir },
    makeRow("reference", "", texts[0], line),
    ...settings.map((setting, i) => {
      const label = make("button", { type: "button", title, "aria-pressed": setting === active }, names[i]);
      label.onclick = () => openSetting(setting);
      const row = makeRow(label, errors[setting][chosen] ?? "not decoded", rows[i], line);
      row.classList.toggle("active", setting === active);
      return row;
    }))));
}

function makeRow(label, count, cells, line) {
  const heads = [make("th", { scope: "row" }, label), make("td", { className: "count" }, count)];
  return make("tr", {}, ...heads, ...line.map((column) => {
    const [letter, text] = cellOf(cells, column);
    const visible = split.metric === "cer" ? text.replaceAll(" ", "␣") : text;
    return make("td", {}, text ? make(TAGS[letter] ?? "span", { dir: "auto" }, visible) : "");
  }));
}

/* Kind and text of a cell. */
function cellOf(cells, [place, kind]) {
  const { I: inserted = "", ...aligned } = cells[place] ?? {};
  return kind === "I" ? ["I", inserted] : Object.entries(aligned)[0] ?? ["=", ""];
}

/* For each place in the reference its unit as it was recognized, by kind, and what was inserted before it. */
function alignedCells(reference, hypothesis) {
  const cells = Array.from({ length: reference.length + 1 }, () => ({}));
  let [place, next] = [0, 0];
  for (const letter of hypothesis?.letters ?? "") {
    if (letter === "I") {
      const before = cells[place].I === undefined ? "" : cells[place].I + (split.metric === "cer" ? "" : " ");
      cells[place].I = before + hypothesis.units[next++];
    } else {
      cells[place][letter] = letter === "D" ? reference[place] : hypothesis.units[next++];
      place++;
    }
  }
  return cells;
}

function makeChoices() {
  const count = () => `Settings: ${shown.size} of ${split.settings.length} beside each other`;
  const summary = make("summary", {}, count());
  const boxes = split.settings.map((_, i) => {
    const box = make("input", { type: "checkbox", checked: shown.has(i) });
    box.onchange = () => {
      box.checked ? shown.add(i) : shown.delete(i);
      summary.textContent = count();
      drawAlignment();
    };
    return make("label", {}, box, ` ${settingTitle(i)}`);
  });
  const list = make("div", { className: "choices" }, ...boxes);
  const choices = make("details", { className: "note", open: choicesOpen }, summary, list);
  choices.ontoggle = () => { choicesOpen = choices.open; };
  return choices;
}

function onKey(event) {
  const tag = event.target.tagName;
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: -Infinity, End: Infinity };
  if (["INPUT", "SELECT", "AUDIO"].includes(tag) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in steps && order.length) {
    choose(order[Math.min(order.length - 1, Math.max(0, order.indexOf(chosen) + steps[event.key]))]);
  } else if (event.key === " " && !["BUTTON", "SUMMARY"].includes(tag)) {
    const audio = document.querySelector("#utterance audio");
    if (audio) audio.paused ? audio.play() : audio.pause();
  } else return;
  event.preventDefault();
}

if (content.splits.length) {
  $("split").append(...content.splits.map((one, i) => make("option", { value: i }, one.name)));
  $("split-label").hidden = content.splits.length < 2;
  $("split").onchange = () => openSplit(+$("split").value);
  $("setting").onchange = () => openSetting(+$("setting").value);
  $("query").oninput = $("heard").onchange = arrange;
  $("controls").onsubmit = (event) => event.preventDefault();
  $("list").onscroll = drawRows;
  $("errors").onkeydown = onKey;
  addEventListener("resize", () => { drawRows(); drawAlignment(); });
  matchMedia("(prefers-color-scheme: dark)").onchange = () => {
    const canvas = document.querySelector("canvas");
    if (canvas?.levels) drawSpectrogram(canvas, canvas.levels);
  };
  openSplit(0);
} else $("errors").replaceChildren();
