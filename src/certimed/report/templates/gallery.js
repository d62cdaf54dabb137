"use strict";
/* The gallery: one card an image, made as it is needed. */
(() => {
  const data = readData("gallery-data");
  if (data === null) return;
  const STEP = 48;
  const OUTCOMES = {
    right: ["✓", "certified, correct"],
    wrong: ["✗", "certified, wrong"],
    certified: ["✓", "certified"],
    few: ["…", "abstained: too few samples"],
    unstable: ["≈", "abstained: unstable under noise"],
    failed: ["!", "failed"],
  };
  const list = byId("gallery");
  const more = byId("gallery-more");
  const control = Object.fromEntries(
    ["series", "outcome", "class", "radius", "text", "sort"].map((name) => [name, byId(`g-${name}`)]),
  );
  const largest = Math.max(0, ...data.series.flatMap((one) => one.rows.map((row) => row.radius || 0))) || 1;
  let shown = [];
  let made = 0;

  const chosen = () => data.series[Number(control.series.value)];
  const className = (one, index) => {
    const names = data.classes[one.run] || [];
    return names[index] === undefined ? `class ${index}` : names[index];
  };

  function facts(row) {
    const shape = data.shapes[row.shape];
    const values = shape.reduce((product, side) => product * side, 1);
    const perValue = (row.radius / Math.sqrt(values)) * 255;
    const entries = [["noisy copies that agree", `${row.agree} of ${row.n}`]];
    if (row.stopped !== undefined) entries.push(["sampling ended", row.stopped]);
    if (row.radius > 0) {
      entries.unshift(
        ["L2, values in [0, 1]", down(row.radius, 4)],
        ["L2, grey levels", down(row.radius * 255, 1)],
        ["per-value RMS, grey levels", down(perValue, 2)],
        ["L-infinity, grey levels", `±${down(perValue, 2)}`],
      );
      if (row.real !== row.radius) entries.push(["for changes off the grid, L2", down(row.real, 4)]);
      const flipped = Math.ceil((row.radius * row.radius) / shape[0]) - 1;
      if (flipped >= 1) entries.push(["pixels it could turn from black to white, in all channels", String(flipped)]);
      if (row.native !== null) {
        const own = data.shapes[row.native.shape];
        const size = own.reduce((product, side) => product * side, 1);
        entries.push([`at native ${own.slice(1).join(" × ")}, L2`, down(row.native.radius, 4)]);
        entries.push(["native per-value RMS, grey levels", down((row.native.radius / Math.sqrt(size)) * 255, 2)]);
      }
    }
    entries.push(["space", `${row.space}, ${shape.slice(1).join(" × ")}`]);
    const terms = element("dl");
    for (const [name, value] of entries) terms.append(element("dt", {}, name), element("dd", {}, value));
    return terms;
  }

  function verdict(row) {
    const [mark, words] = OUTCOMES[row.outcome];
    const sign = element("span", { "aria-hidden": "true" }, `${mark} `);
    return element("p", { class: "verdict" }, element("span", { class: `swatch o-${row.outcome}`, "aria-hidden": "true" }), sign, words);
  }

  function card(one, row) {
    const image = data.images[row.image];
    const item = element("li", { "data-outcome": row.outcome, "data-radius": row.radius });
    if (image.thumb !== undefined) {
      item.append(element("img", { src: image.thumb, alt: `Image ${image.name}`, decoding: "async" }));
    }
    item.append(element("h3", {}, element("bdi", {}, image.name)), verdict(row));
    if (row.outcome === "failed") {
      item.append(element("p", {}, element("bdi", {}, row.reason || "no reason given")));
      return item;
    }
    const abstained = row.outcome === "few" || row.outcome === "unstable";
    const answer = element("p", {}, abstained ? "leaning towards: " : "answer: ", element("bdi", {}, className(one, row.prediction)));
    item.append(answer);
    if (row.label !== null && row.label !== row.prediction) {
      item.append(element("p", { class: "quiet" }, "truth: ", element("bdi", {}, className(one, row.label))));
    }
    if (row.clean !== null && row.clean !== row.prediction) {
      item.append(element("p", { class: "quiet" }, "without noise: ", element("bdi", {}, className(one, row.clean))));
    }
    if (!abstained) {
      const length = element("span", { style: `width:${(100 * row.radius) / largest}%` });
      item.append(element("p", {}, `radius ${down(row.radius)}`), element("div", { class: "length", "aria-hidden": "true" }, length));
    }
    item.append(element("p", { class: "quiet" }, `scope: ${row.scope}`));
    item.append(element("details", {}, element("summary", {}, abstained ? "Details" : "The radius in other units"), facts(row)));
    return item;
  }

  function extend() {
    const one = chosen();
    const next = shown.slice(made, made + STEP);
    list.append(...next.map((row) => card(one, row)));
    made += next.length;
    more.hidden = made >= shown.length;
    more.textContent = `Show more (${shown.length - made} left)`;
  }

  const name = (row) => data.images[row.image].name;
  const ORDERS = {
    largest: (a, b) => (b.radius || 0) - (a.radius || 0),
    smallest: (a, b) => (a.radius || 0) - (b.radius || 0),
    name: (a, b) => name(a).localeCompare(name(b)),
    answer: (a, b) => (a.prediction ?? 1e9) - (b.prediction ?? 1e9),
  };

  function update() {
    const one = chosen();
    const text = control.text.value.toLowerCase();
    const least = Number(control.radius.value) || 0;
    const kind = control.class.value;
    shown = one.rows.filter(
      (row) =>
        (control.outcome.value === "" || row.outcome === control.outcome.value) &&
        (kind === "" || String(row.prediction) === kind || String(row.label) === kind) &&
        (least <= 0 || (row.radius || 0) >= least) &&
        (text === "" || name(row).toLowerCase().includes(text)),
    );
    if (ORDERS[control.sort.value]) shown.sort(ORDERS[control.sort.value]);
    list.replaceChildren();
    made = 0;
    extend();
    byId("gallery-count").textContent = `${shown.length} of ${one.rows.length} images`;
  }

  function changeSeries() {
    const one = chosen();
    const kept = control.class.value;
    const used = new Set(one.rows.flatMap((row) => [row.prediction, row.label]).filter((index) => index !== null && index !== undefined));
    fill(control.class, [["", "all"], ...[...used].sort((a, b) => a - b).map((index) => [String(index), className(one, index)])]);
    if ([...control.class.options].some((option) => option.value === kept)) control.class.value = kept;
    const present = new Set(one.rows.map((row) => row.outcome));
    for (const option of control.outcome.options) option.hidden = option.value !== "" && !present.has(option.value);
    if (control.outcome.value !== "" && !present.has(control.outcome.value)) control.outcome.value = "";
    update();
  }

  const several = new Set(data.series.map((one) => one.runName)).size > 1;
  fill(control.series, data.series.map((one, index) => [String(index), several ? `${one.name} · ${one.runName}` : one.name]));
  control.series.addEventListener("change", changeSeries);
  for (const each of ["outcome", "class", "sort"]) control[each].addEventListener("change", update);
  for (const each of ["radius", "text"]) control[each].addEventListener("input", debounced(update));
  byId("gallery-controls").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const first = made;
    extend();
    const target = list.children[first];
    if (target) target.querySelector("summary, h3").focus();
  });
  changeSeries();
})();
