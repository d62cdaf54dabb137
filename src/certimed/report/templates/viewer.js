"use strict";
/* The radius slider: which pixels keep their class below a radius, and between which values Dice then stays. */
(() => {
  const data = readData("viewer-data");
  if (data === null) return;
  const control = Object.fromEntries(
    ["run", "series", "sort", "text", "image", "radius", "certified", "abstained", "prediction", "truth", "lines"].map((name) => [name, byId(`v-${name}`)]),
  );
  const STEP = 24;
  const canvas = byId("v-canvas");
  const planes = new Planes(byId("v-planes"), canvas, () => now !== null && draw());
  const cache = new Map();
  let now = null; // the image and method on show, decoded
  let listed = []; // [position, image] of the images that match, in order
  let ticket = 0; // decoding is asynchronous: only the last request may draw

  const run = () => data.runs[Number(control.run.value)];
  const entry = () => (control.image.value === "" ? undefined : run().images[Number(control.image.value)]);
  async function inflate(text, width) {
    const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    return width === 1 ? new Uint8Array(buffer) : width === 2 ? new Uint16Array(buffer) : new Uint32Array(buffer);
  }

  async function picture(address) {
    const image = new Image();
    image.src = address;
    await image.decode();
    return image;
  }

  /* Pixel counts for "certified where the pixel's own radius is at least radii[step - 1]", for every step at once. */
  function countsByStep(classes, steps, ranks, mask, truth) {
    const size = classes * (steps + 1);
    const kept = { right: new Float64Array(size), predicted: new Float64Array(size), truth: new Float64Array(size), pixels: new Float64Array(steps + 1) };
    for (let i = 0; i < ranks.length; i += 1) {
      const place = ranks[i] * classes;
      kept.pixels[ranks[i]] += 1;
      kept.predicted[place + mask[i]] += 1;
      if (truth !== null) {
        kept.truth[place + truth[i]] += 1;
        if (truth[i] === mask[i]) kept.right[place + mask[i]] += 1;
      }
    }
    for (let step = steps - 1; step >= 0; step -= 1) {
      kept.pixels[step] += kept.pixels[step + 1];
      for (let c = 0; c < classes; c += 1) {
        for (const each of [kept.right, kept.predicted, kept.truth]) each[step * classes + c] += each[(step + 1) * classes + c];
      }
    }
    return kept;
  }

  /* Dice of each class under any attack below the radius: 2TP/(P+Q+A_n) to 2(TP+A_c)/(P+Q+A_c). */
  function diceAt(kept, classes, step, empty) {
    const whole = kept.truth.slice(0, classes);
    const own = whole.map((count, c) => count - kept.truth[step * classes + c]);
    const abstained = own.reduce((sum, count) => sum + count, 0);
    const ratio = (above, below) => (below > 0 ? above / below : empty === "one" ? 1 : 0);
    const rows = [];
    for (let c = 0; c < classes; c += 1) {
      const tp = kept.right[step * classes + c];
      const both = whole[c] + kept.predicted[step * classes + c];
      const leftOut = empty === "skip" && whole[c] === 0;
      rows.push(leftOut ? null : [ratio(2 * tp, both + abstained - own[c]), ratio(2 * (tp + own[c]), both + own[c])]);
    }
    const counted = rows.slice(1).filter((row) => row !== null);
    const mean = (side) => counted.reduce((sum, row) => sum + row[side], 0) / counted.length;
    return { rows, foreground: counted.length > 0 ? [mean(0), mean(1)] : null };
  }

  async function decode(one, key, name) {
    const id = `${name} ${control.run.value}`;
    if (cache.has(id)) return cache.get(id);
    const layers = one.layers;
    const map = layers.maps[key];
    const [mask, ranks, truth, base] = await Promise.all([
      inflate(map.mask, 2),
      inflate(map.ranks, map.bytes),
      layers.truth === undefined ? null : inflate(layers.truth, 2),
      layers.base === undefined ? null : layers.base.startsWith("data:") ? picture(layers.base) : inflate(layers.base, 1),
    ]);
    const classes = run().classes.length;
    const kept = countsByStep(classes, map.radii.length, ranks, mask, truth);
    const decoded = { name, mask, ranks, truth, base, classes, kept, radii: map.radii, layers, numbers: one.series[key] };
    if (cache.size > 12) cache.clear();
    cache.set(id, decoded);
    return decoded;
  }

  function draw() {
    const show = Object.fromEntries(["certified", "abstained", "prediction", "truth", "lines"].map((name) => [name, control[name].checked]));
    planes.draw(now, Number(control.radius.value), show);
  }

  /* Values of an image, and what its parts are called. */
  const values = () => now.ranks.length * now.layers.channels;
  const parts = () => (now.layers.size.length > 2 ? "voxels" : "pixels");

  function said(radius, share, dice) {
    const levels = (radius / Math.sqrt(values())) * 255;
    const end = dice === null ? "" : `; Dice stays within ${down(dice[0])} to ${up(dice[1])}`;
    return `Below radius ${down(radius)}, ${down(levels, 2)} grey levels RMS, ${percent(share)} of the ${parts()} keep their class${end}.`;
  }

  function table(rows) {
    const head = element("tr", {}, ...["class", "Dice at least", "Dice at most"].map((text, i) => element("th", { scope: "col", class: i ? "num" : null }, text)));
    const body = rows.map((row, c) =>
      element("tr", {}, element("th", { scope: "row" }, element("bdi", {}, run().classes[c])),
        element("td", { class: "num" }, row === null ? "–" : down(row[0])), element("td", { class: "num" }, row === null ? "–" : up(row[1]))));
    byId("v-table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
  }

  /* The whole interval over the radius, and where the slider is. */
  function curve(step) {
    const holder = byId("v-curve");
    const steps = now.radii.length;
    const of = (each) => (now.truth === null ? null : diceAt(now.kept, now.classes, each, now.layers.empty).foreground);
    now.course ??= now.radii.map((_, index) => of(index + 1) || [now.kept.pixels[index + 1] / now.ranks.length, 1]);
    const [wide, high, left, bottom, top] = [420, 170, 40, 34, 8];
    const x = (radius) => left + ((wide - left - 8) * radius) / now.radii[steps - 1];
    const y = (share) => top + (high - top - bottom) * (1 - share);
    const dice = now.truth !== null && now.course.length > 0;
    const title = dice ? "Guaranteed Dice to best case, below each radius" : "Share of pixels that stay, against the radius";
    const svg = svgElement("svg", { class: "chart", viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `${title}; the line marks the slider` });
    for (const share of [0, 0.5, 1]) {
      svg.append(svgElement("line", { class: "grid", x1: left, x2: wide - 8, y1: y(share), y2: y(share) }));
      svg.append(svgElement("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, share.toFixed(1)));
    }
    const trace = (side) => now.course.flatMap((pair, i) => [[x(i ? now.radii[i - 1] : 0), y(pair[side])], [x(now.radii[i]), y(pair[side])]]);
    const path = (points) => `M${points.map((point) => point.map((value) => value.toFixed(1)).join(" ")).join("L")}`;
    if (dice) svg.append(svgElement("path", { class: "area", d: `${path([...trace(0), ...trace(1).reverse()])}Z` }));
    svg.append(svgElement("path", { class: "line c0", d: path(trace(0)) }));
    const at = x(now.radii[step - 1]);
    svg.append(svgElement("line", { class: "marker", x1: at, x2: at, y1: top, y2: high - bottom }));
    svg.append(svgElement("text", { x: left, y: high - 18 }, "0"));
    svg.append(svgElement("text", { x: wide - 8, y: high - 18, "text-anchor": "end" }, down(now.radii[steps - 1])));
    svg.append(svgElement("text", { x: (left + wide) / 2, y: high - 4, "text-anchor": "middle" }, "radius, L2"));
    holder.replaceChildren(element("figcaption", {}, title), svg);
  }

  function read() {
    const step = Number(control.radius.value);
    const radius = now.radii[step - 1];
    const share = now.kept.pixels[step] / now.ranks.length;
    const found = now.truth === null ? null : diceAt(now.kept, now.classes, step, now.layers.empty);
    const dice = found === null ? null : found.foreground;
    byId("v-value").textContent = down(radius);
    byId("v-share").textContent = percent(share);
    byId("v-dice").textContent = dice === null ? "–" : `${down(dice[0])} – ${up(dice[1])}`;
    byId("v-dice-box").hidden = dice === null;
    Object.assign(canvas.dataset, { shown: now.name, radius, share, low: dice === null ? "" : dice[0], high: dice === null ? "" : dice[1] });
    control.radius.setAttribute("aria-valuetext", `${down(radius)}, ${percent(share)} of the ${parts()} stay`);
    byId("v-said").textContent = said(radius, share, dice);
    units(radius);
    if (found === null) byId("v-table").replaceChildren();
    else table(found.rows);
    curve(step);
    draw();
  }

  /* The radius of the slider in the units different readers think in. */
  function units(radius) {
    const perValue = (radius / Math.sqrt(values())) * 255;
    const entries = [
      ["L2, values in [0, 1]", down(radius, 4)],
      ["L2, grey levels", down(radius * 255, 1)],
      ["per-value RMS, grey levels", down(perValue, 2)],
      ["L-infinity, grey levels", `±${down(perValue, 2)}`],
    ];
    const { native, loss } = now.numbers;
    const real = reduced(radius, loss);
    if (loss > 0) entries.push(["for changes off the grid, L2", down(real, 4)]);
    if (native !== null) {
      const own = divided(real, native.norm);
      const size = native.shape.reduce((product, side) => product * side, 1);
      entries.push([`at native ${native.shape.slice(1).join(" × ")}, L2`, down(own, 4)]);
      entries.push(["native per-value RMS, grey levels", down((own / Math.sqrt(size)) * 255, 2)]);
    }
    entries.push(["scope", now.numbers.scope], ["space", `${now.numbers.space}, ${now.layers.size.join(" × ")}`]);
    byId("v-units").replaceChildren(...entries.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  }

  function statement() {
    const own = now.numbers;
    const tested = `${now.ranks.length.toLocaleString("en")} ${parts()}`;
    let text = `Every position of the slider holds at once: each ${parts().slice(0, -1)} has a radius of its own, tested together with all ${tested} (Bonferroni). This fails with probability at most ${own.risk} over the noise drawn. `;
    if (now.truth !== null) text += "Dice: mean over the classes but the first; each class's worst case is taken by itself. ";
    if (own.proved) {
      text += `The run's own certificate is a second statement from the same ${own.n} copies: ${percent(own.share)} of the ${parts()} at radius ${down(own.radius)} (${own.correction}, tau ${own.tau})`;
      text += own.low === undefined || own.low === null ? ". " : `, Dice at least ${down(own.low)}. `;
      text += `Either fails with probability at most ${own.risks}.`;
    } else text += `The run's own certificate (${own.correction}, tau ${own.tau}) proves no pixel here.`;
    if (own.stopped !== null) text += ` Samples: ${own.stopped}; the probability covers every look.`;
    return text;
  }

  function refuse(text) {
    now = null;
    byId("v-none").textContent = text;
    byId("v-none").hidden = false;
    planes.holder.hidden = true;
    control.radius.disabled = true;
    for (const id of ["v-value", "v-share", "v-dice"]) byId(id).textContent = "–";
    for (const id of ["v-said", "v-statement"]) byId(id).textContent = "";
    for (const id of ["v-table", "v-curve", "v-units"]) byId(id).replaceChildren();
  }

  async function show() {
    ticket += 1;
    const mine = ticket;
    const one = entry();
    const key = control.series.value;
    if (one === undefined) return refuse("No image matches.");
    const own = one.series[key];
    if (one.layers === undefined) return refuse(`This page has no pixels of this image. Certified: ${percent(own.share)} of its pixels at radius ${down(own.radius)}.`);
    if (one.layers.maps[key].radii.length === 0) return refuse("No pixel of this image has a positive radius with this method.");
    if (typeof DecompressionStream === "undefined") return refuse("This browser is too old to unpack the pixels; any current one can.");
    const decoded = await decode(one, key, `${control.image.value} ${key}`);
    if (mine !== ticket) return undefined;
    const before = now === null ? own.radius : now.radii[Number(control.radius.value) - 1];
    now = decoded;
    byId("v-none").hidden = true;
    planes.holder.hidden = false;
    planes.arrange(now.layers, now.mask);
    control.radius.disabled = false;
    control.radius.max = now.radii.length;
    // The slider stays at the radius it had, or goes to the run's own.
    const reached = now.radii.findIndex((radius) => radius >= before - 1e-12);
    control.radius.value = reached < 0 ? now.radii.length : reached + 1;
    control.truth.disabled = now.truth === null;
    byId("v-parts").textContent = parts() === "voxels" ? "Voxels that stay" : "Pixels that stay";
    byId("v-lines-box").hidden = now.layers.size.length < 3;
    planes.describe(`Image ${one.name} with its mask: certified pixels in the colour of their class, abstained pixels hatched`);
    byId("v-statement").textContent = statement();
    const keys = run().classes.map((name, c) => {
      const [r, g, b] = classColour(c);
      const swatch = element("span", { class: "swatch", "aria-hidden": "true", style: `background:rgb(${r},${g},${b})` });
      return element("li", {}, c === 0 ? "" : swatch, element("bdi", {}, name), c === 0 ? " (clear)" : "");
    });
    byId("v-classes").replaceChildren(...keys);
    read();
    return undefined;
  }

  function card(index, one) {
    const own = one.series[control.series.value];
    const base = one.layers === undefined ? undefined : one.layers.thumb ?? (one.layers.size.length > 2 ? undefined : one.layers.base);
    const kinds = [["certified", own.share], ["few", own.few], ["unstable", own.unstable]];
    const parts = kinds.map(([kind, share]) => element("span", { class: `o-${kind}`, style: `width:${100 * share}%` }));
    const button = element("button", { type: "button", "aria-label": `Show above: ${one.name}` }, "Show above");
    button.addEventListener("click", () => {
      control.image.value = String(index);
      show();
      control.radius.focus();
    });
    return element("li", { "data-share": own.share },
      base === undefined ? null : element("img", { src: base, alt: `Image ${one.name}`, decoding: "async" }),
      element("h3", {}, element("bdi", {}, one.name)),
      element("span", { class: "bar", "aria-hidden": "true" }, ...parts),
      element("p", {}, `${percent(own.share)} of the pixels certified at radius ${down(own.radius)}`),
      own.low === undefined || own.low === null ? null : element("p", {}, `Dice ${down(own.low)} to ${up(own.high)}`),
      element("p", {}, button));
  }

  function extend() {
    const made = byId("v-sheet").children.length;
    byId("v-sheet").append(...listed.slice(made, made + STEP).map(([index, one]) => card(index, one)));
    const left = listed.length - byId("v-sheet").children.length;
    byId("v-more").hidden = left <= 0;
    byId("v-more").textContent = `Show more (${left} left)`;
  }

  function listImages() {
    const key = control.series.value;
    const text = control.text.value.toLowerCase();
    const kept = control.image.value;
    const ORDERS = {
      least: (a, b) => a[1].series[key].share - b[1].series[key].share,
      most: (a, b) => b[1].series[key].share - a[1].series[key].share,
      low: (a, b) => (a[1].series[key].low ?? 2) - (b[1].series[key].low ?? 2),
      name: (a, b) => a[1].name.localeCompare(b[1].name),
    };
    const found = run().images.map((one, index) => [index, one]).filter(([, one]) => one.series[key] !== undefined && one.name.toLowerCase().includes(text));
    if (ORDERS[control.sort.value]) found.sort(ORDERS[control.sort.value]);
    fill(control.image, found.map(([index, one]) => [String(index), `${one.name} — ${percent(one.series[key].share)} certified`]));
    if (found.some(([index]) => String(index) === kept)) control.image.value = kept;
    const { failed } = run();
    const rest = failed ? `; ${failed} failed and listed below` : "";
    byId("v-count").textContent = `${found.length} of ${run().images.length} images${rest}`;
    listed = found;
    byId("v-sheet").replaceChildren();
    extend();
    show();
  }

  function changeRun() {
    fill(control.series, run().series.map((one) => [one.key, one.name]));
    const best = run().series[run().series.length - 1];
    control.series.value = best.key;
    listImages();
  }

  function turn(by) {
    const count = control.image.options.length;
    if (count === 0) return;
    control.image.selectedIndex = (control.image.selectedIndex + by + count) % count;
    show();
  }

  fill(control.run, data.runs.map((one, index) => [String(index), one.name]));
  control.run.addEventListener("change", changeRun);
  control.series.addEventListener("change", listImages);
  control.sort.addEventListener("change", listImages);
  control.text.addEventListener("input", debounced(listImages));
  control.image.addEventListener("change", show);
  control.radius.addEventListener("input", () => now !== null && read());
  for (const each of ["certified", "abstained", "prediction", "truth", "lines"]) control[each].addEventListener("change", () => now !== null && draw());
  byId("v-more").addEventListener("click", extend);
  byId("v-previous").addEventListener("click", () => turn(-1));
  byId("v-next").addEventListener("click", () => turn(1));
  byId("viewer-controls").addEventListener("submit", (event) => event.preventDefault());
  changeRun();
})();
