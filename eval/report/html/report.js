"use strict";
// Sorts tables, shows what a mark stands for, and searches the probes. Texts of models and banks only ever
// become text nodes: nothing here writes HTML.

function make(tag, attributes, ...content) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...content);
  return element;
}

// ---- tables ------------------------------------------------------------------------------------------

function makeSortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const values = new Map(original.map((row) => [row, [...row.cells].map((cell) => cell.dataset.sort)]));

  function sort(place) {
    const numeric = heads[place].classList.contains("num");
    const before = heads[place].getAttribute("aria-sort");
    const order = { ascending: "descending", descending: null }[before] ?? (before ? null : "ascending");
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    const rows = [...original];
    if (order) {
      heads[place].setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((one, two) => {
        const a = values.get(one)[place], b = values.get(two)[place];
        if (a === "" || b === "") return (a === "") - (b === ""); // what is missing stands last, whichever way
        return sign * (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      });
    }
    body.append(...rows);
    if (table.classList.contains("grouped")) markRepeats(rows, order === null || place === 0);
  }

  heads.forEach((head, place) => {
    const button = make("button", { type: "button" }, head.textContent);
    button.addEventListener("click", () => sort(place));
    head.replaceChildren(button);
  });
}

// In the order of their groups, labels that the row above says already are dimmed; in any other, all are shown.
function markRepeats(rows, grouped) {
  rows.forEach((row, place) => {
    let again = grouped && place > 0;
    row.querySelectorAll("th").forEach((label, column) => {
      again = again && rows[place - 1].cells[column].dataset.sort === label.dataset.sort;
      label.classList.toggle("again", again);
      if (column === 0) row.classList.toggle("first", grouped && !again);
    });
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);

// ---- marks of figures ----------------------------------------------------------------------------------

function showTitles() {
  const tip = make("div", { id: "tip", role: "status", hidden: "" });
  document.body.append(tip);
  const texts = new WeakMap();
  document.querySelectorAll("svg .mark").forEach((mark) => {
    const title = mark.querySelector("title");
    texts.set(mark, title.textContent);
    title.remove(); // else the browser's own hint comes on top
  });
  function show(event) {
    const mark = event.target.closest ? event.target.closest("svg .mark") : null;
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = texts.get(mark);
    const box = mark.getBoundingClientRect();
    const left = Math.min(event.clientX + 12, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left) + window.scrollX}px`;
    tip.style.top = `${box.bottom + window.scrollY + 6}px`;
  }
  document.addEventListener("pointerover", show);
  document.addEventListener("click", show); // a finger has no hover
}

showTitles();

// ---- print -------------------------------------------------------------------------------------------

// What is folded is printed too; style alone cannot say so in every browser.
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));

// ---- probes --------------------------------------------------------------------------------------------

const PAGE = 20;

function showToken(text) {
  const shown = text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\r", "␍").replaceAll("\t", "⇥");
  return shown || "∅";
}

function browse(data) {
  const { probes, results, models, tokenizers, texts } = data;
  const count = probes.probe_id.length;
  const text = (place) => (place === null ? "" : texts[place]);
  const lower = texts.map((one) => one.toLocaleLowerCase());
  const searched = ["prompt", "answer", "subject", "relation", "probe_id"];
  const haystack = (probe) =>
    searched.map((name) => (probes[name][probe] === null ? "" : lower[probes[name][probe]])).join("\n");
  const joint = (probe) => (probes.joint[probe] === null ? " " : text(probes.joint[probe])); // older results have none
  const isRight = (result, probe) => {
    const value = result.exact_match[probe] ?? result.accuracy[probe];
    return value === null ? null : value === 1;
  };
  const outcomes = {
    "all models right": (right) => right.every(Boolean),
    "all models wrong": (right) => !right.some(Boolean),
    "models disagree": (right) => right.some(Boolean) && !right.every(Boolean),
  };

  const search = make("input", { type: "search", placeholder: "subject, prompt, answer …", autocomplete: "off" });
  const select = (all, options) =>
    make("select", {}, make("option", { value: "" }, all), ...options.map(([value, name]) => make("option", { value }, name)));
  const seen = (name) =>
    [...new Set(probes[name])].filter((place) => place !== null).map((place) => [String(place), texts[place]]);
  const type = select("all types", seen("type"));
  const role = select("all roles", seen("role"));
  const model = select("all models", models.map((name, place) => [String(place), name]));
  const outcome = select("any outcome", Object.keys(outcomes).map((name) => [name, name]));
  const controls = make(
    "div",
    { class: "controls" },
    ...[["Search", search], ["Type", type], ["Role", role], ["Model", model], ["Outcome", outcome]].map(
      ([name, control]) => make("label", {}, name, control),
    ),
  );
  const found = make("p", { class: "found", role: "status" });
  const list = make("ol", { class: "probes" });
  const back = make("button", { type: "button" }, "Previous");
  const next = make("button", { type: "button" }, "Next");
  const where = make("span", {});
  const pager = make("div", { class: "pager" }, back, next, where);
  document.getElementById("browser").append(controls, found, list, pager);

  let hits = [];
  let page = 0;

  function filter() {
    const words = search.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    const shown = model.value === "" ? results : [results[Number(model.value)]];
    hits = [];
    for (let probe = 0; probe < count; probe++) {
      if (type.value && probes.type[probe] !== Number(type.value)) continue;
      if (role.value && probes.role[probe] !== Number(role.value)) continue;
      if (words.length) {
        const hay = haystack(probe);
        if (!words.every((word) => hay.includes(word))) continue;
      }
      if (outcome.value) {
        const right = shown.map((result) => isRight(result, probe)).filter((one) => one !== null);
        if (!right.length || !outcomes[outcome.value](right)) continue;
      }
      hits.push(probe);
    }
    page = 0;
    draw();
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(hits.length / PAGE));
    list.replaceChildren(...hits.slice(page * PAGE, (page + 1) * PAGE).map(probeItem));
    const kept = count < data.total ? `, evenly taken from ${data.total.toLocaleString("en")} to keep this page small; results.csv has all` : "";
    found.textContent = `${hits.length.toLocaleString("en")} of ${count.toLocaleString("en")} probes${kept}`;
    where.textContent = `page ${page + 1} of ${pages.toLocaleString("en")}`;
    back.disabled = page === 0;
    next.disabled = page + 1 >= pages;
    pager.hidden = pages === 1;
  }

  function probeItem(probe) {
    const meta = ["type", "role", "arm", "relation", "flags"].map((name) => text(probes[name][probe])).filter(Boolean);
    const places = model.value === "" ? models.map((_, place) => place) : [Number(model.value)];
    // log-probabilities by the token stand side by side only where the tokenizer is the same
    const sameTokenizer = new Set(places.map((place) => tokenizers[place])).size === 1 && tokenizers[places[0]] !== null;
    const withTokens = places.some((place) => results[place].top_tokens);
    const heads = ["model", "says", "rank", "bits/byte"];
    if (sameTokenizer) heads.push("log-prob.");
    if (withTokens) heads.push("most probable next tokens");
    const table = make(
      "table",
      {},
      make("thead", {}, make("tr", {}, ...heads.map((name) =>
        make("th", { scope: "col", class: ["rank", "bits/byte", "log-prob."].includes(name) ? "num" : "text" }, name)))),
      make("tbody", {}, ...places.map((place) => answerRow(place, probe, sameTokenizer, withTokens))),
    );
    const scroll = make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Answers of the models" }, table);
    return make(
      "li",
      { class: "probe" },
      make("p", { class: "meta" }, ...meta.flatMap((one, place) => [place ? " · " : "", make("bdi", {}, one)])),
      make("h3", {}, make("bdi", {}, text(probes.prompt[probe])), joint(probe), make("bdi", { class: "answer" }, text(probes.answer[probe]))),
      scroll,
    );
  }

  function answerRow(place, probe, sameTokenizer, withTokens) {
    const result = results[place];
    const figure = (value, digits) => make("td", { class: "num" }, value === null ? "" : value.toFixed(digits).replace("-", "−"));
    const right = isRight(result, probe);
    const generation = result.generation[probe];
    const rank = result.candidate_rank[probe];
    const said = generation === null ? { true: "right", false: "wrong", null: "" }[right] : texts[generation];
    const cells = [
      make("th", { scope: "row", class: "text" }, make("bdi", {}, models[place])),
      make("td", { class: `says ${right === null ? "" : right ? "right" : "wrong"}` }, make("bdi", {}, said)),
      figure(rank, Number.isInteger(rank) ? 0 : 1),
      figure(result.bits_per_byte[probe], 2),
    ];
    if (sameTokenizer) cells.push(figure(result.logprob[probe], 2));
    if (withTokens) cells.push(make("td", { class: "tokens" }, ...topTokens(result.top_tokens?.[probe] ?? [])));
    return make("tr", {}, ...cells);
  }

  function topTokens(flat) {
    const tokens = [];
    for (let place = 0; place < flat.length; place += 2) {
      const p = make("span", { class: "p" }, flat[place + 1].toFixed(2));
      tokens.push(make("span", { class: "token" }, make("bdi", {}, showToken(texts[flat[place]])), " ", p));
    }
    return tokens;
  }

  let waiting;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  });
  [type, role, model, outcome].forEach((control) => control.addEventListener("change", filter));
  const turn = (by) => {
    page += by;
    draw();
    controls.scrollIntoView();
  };
  back.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  filter();
}

const data = document.getElementById("data");
if (data) browse(JSON.parse(data.textContent));
