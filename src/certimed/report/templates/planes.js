"use strict";
/* The planes of an image: one of a picture, three of a volume, each a canvas, of volumes with a slider for its slice. */
const CLASS_COLOURS = [[120, 120, 120], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [204, 121, 167]];
const classColour = (index) => (index === 0 ? CLASS_COLOURS[0] : CLASS_COLOURS[1 + ((index - 1) % (CLASS_COLOURS.length - 1))]);

class Planes {
  /* `changed` is called when a slice was chosen. */
  constructor(holder, first, changed) {
    Object.assign(this, { holder, first, changed, planes: [], at: [], kind: "" });
  }

  /* Lays out the planes of an image; slices stay where they are between images of one shape. */
  arrange({ shape, spacing, planes }, mask) {
    const kind = JSON.stringify([shape, spacing, planes]);
    if (kind === this.kind) return;
    Object.assign(this, { kind, shape, spacing, strides: shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1)) });
    this.at = shape.map((_, axis) => this.fullest(axis, mask));
    this.planes = planes.map((plane, number) => this.build(plane, number, planes));
    this.holder.classList.toggle("three", planes.length > 1);
    this.holder.replaceChildren(...this.planes.map((plane) => plane.figure));
  }

  /* The slice across an axis that shows most of the foreground; the middle one where there is none. */
  fullest(axis, mask) {
    const counts = new Uint32Array(this.shape[axis]);
    for (let i = 0; i < mask.length; i += 1) if (mask[i] > 0) counts[Math.floor(i / this.strides[axis]) % this.shape[axis]] += 1;
    const best = counts.indexOf(Math.max(...counts));
    return counts[best] > 0 ? best : Math.floor(this.shape[axis] / 2);
  }

  build(plane, number, planes) {
    const canvas = number === 0 ? this.first : element("canvas", { role: "img", "aria-describedby": "v-said" });
    const [wide, high] = [plane.across, plane.down].map((axis) => this.shape[axis] * this.spacing[axis]);
    const longest = Math.max(...this.shape.map((side, axis) => side * this.spacing[axis]));
    const most = Math.max(...this.shape);
    const widest = Math.max(...planes.map((one) => this.shape[one.across] * this.spacing[one.across]));
    // A picture's pixels become whole squares; a volume's three planes share one scale.
    const scale = plane.fixed === null ? Math.max(1, Math.min(8, Math.round(640 / most))) : Math.min(640, Math.max(400, most)) / longest;
    canvas.width = Math.max(1, Math.round(wide * scale));
    canvas.height = Math.max(1, Math.round(high * scale));
    const made = { ...plane, canvas, x: this.places(canvas.width, plane.across, plane.turned[0]), y: this.places(canvas.height, plane.down, plane.turned[1]) };
    made.rim = Math.max(1, Math.round(Math.min(canvas.width / this.shape[plane.across], canvas.height / this.shape[plane.down]) / 3));
    if (plane.fixed === null) {
      made.figure = element("figure", { class: "plane" }, canvas);
      return made;
    }
    const last = this.shape[plane.fixed] - 1;
    made.slider = element("input", { type: "range", min: 0, max: last, step: 1, id: `v-slice-${number}` });
    made.slider.value = this.at[plane.fixed];
    made.told = element("span", { class: "quiet" });
    made.slider.addEventListener("input", () => this.move(plane.fixed, Number(made.slider.value)));
    canvas.addEventListener("click", (event) => this.point(made, event));
    made.figure = element("figure", { class: "plane", style: `--share:${wide / widest}` }, canvas,
      element("figcaption", {}, element("label", { for: `v-slice-${number}` }, `${plane.name} slice`), " ", made.told), made.slider);
    return made;
  }

  /* For each pixel of a canvas along one side: which index it shows, and how far it is from the voxel's two edges. */
  places(length, axis, turned) {
    const count = this.shape[axis];
    const index = Array.from({ length }, (_, at) => Math.min(count - 1, Math.floor(((at + 0.5) * count) / length)));
    const begin = index.map((own, at) => at - index.indexOf(own));
    const end = index.map((own, at) => index.lastIndexOf(own) - at);
    return { index: turned ? index.map((own) => count - 1 - own) : index, begin, end, step: turned ? -1 : 1, count, stride: this.strides[axis] };
  }

  move(axis, index) {
    this.at[axis] = index;
    for (const plane of this.planes) if (plane.fixed === axis) plane.slider.value = index;
    this.changed();
  }

  /* A click on one plane chooses the slices of the other two. */
  point(plane, event) {
    const box = plane.canvas.getBoundingClientRect();
    const pixel = (offset, size, count) => Math.max(0, Math.min(count - 1, Math.floor((offset / size) * count)));
    this.at[plane.across] = plane.x.index[pixel(event.clientX - box.left, box.width, plane.canvas.width)];
    this.move(plane.down, plane.y.index[pixel(event.clientY - box.top, box.height, plane.canvas.height)]);
    this.move(plane.across, this.at[plane.across]);
  }

  draw(now, step, show) {
    for (const plane of this.planes) this.paint(plane, now, step, show);
  }

  paint(plane, now, step, show) {
    const { canvas, x, y, rim } = plane;
    const { width, height } = canvas;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const grey = now.base instanceof Uint8Array ? now.base : null;
    let surface;
    if (grey === null) {
      context.imageSmoothingEnabled = false;
      context.fillStyle = "#808080";
      context.fillRect(0, 0, width, height);
      if (now.base !== null) context.drawImage(now.base, 0, 0, width, height);
      surface = context.getImageData(0, 0, width, height);
    } else surface = context.createImageData(width, height);
    const pixels = surface.data;
    const start = plane.fixed === null ? 0 : this.at[plane.fixed] * this.strides[plane.fixed];
    const mix = (place, red, green, blue, part) => {
      pixels[place] += part * (red - pixels[place]);
      pixels[place + 1] += part * (green - pixels[place + 1]);
      pixels[place + 2] += part * (blue - pixels[place + 2]);
    };
    const fill = (place, index, part) => {
      const tone = classColour(index);
      mix(place, tone[0], tone[1], tone[2], part);
    };
    /* At an edge of a voxel: 1 where a lower class begins beyond it, 2 where only higher ones do, else 0. */
    const edge = (values, i, px, py) => {
      const own = values[i];
      let found = 0;
      for (let number = 0; number < 4; number += 1) {
        const side = number < 2 ? x : y;
        const at = number < 2 ? px : py;
        const before = number % 2 === 0;
        if ((before ? side.begin[at] : side.end[at]) >= rim) continue;
        const step = before ? -side.step : side.step;
        const index = side.index[at] + step;
        if (index < 0 || index >= side.count) continue;
        const other = values[i + step * side.stride];
        if (other < own) return 1;
        if (other > own) found = 2;
      }
      return found;
    };
    const truth = show.truth ? now.truth : null;
    for (let py = 0; py < height; py += 1) {
      const row = start + y.index[py] * y.stride;
      const flat = y.begin[py] >= rim && y.end[py] >= rim;
      for (let px = 0; px < width; px += 1) {
        const i = row + x.index[px] * x.stride;
        const place = 4 * (py * width + px);
        if (grey !== null) {
          pixels[place] = pixels[place + 1] = pixels[place + 2] = grey[i];
          pixels[place + 3] = 255;
        }
        const stays = now.ranks[i] >= step;
        if (stays && show.certified && now.mask[i] > 0) fill(place, now.mask[i], 0.5);
        if (!stays && show.abstained) {
          const band = (px + py) % 9;
          if (band < 3) mix(place, band < 2 ? 255 : 0, band < 2 ? 255 : 0, band < 2 ? 255 : 0, 0.8);
        }
        if (flat && x.begin[px] >= rim && x.end[px] >= rim) continue;
        if (show.prediction && (px + py) % 8 < 5 && edge(now.mask, i, px, py) === 1) fill(place, now.mask[i], 1);
        if (truth !== null) {
          // White inside, black outside: seen on any image.
          const side = edge(truth, i, px, py);
          if (side > 0) mix(place, side === 1 ? 255 : 0, side === 1 ? 255 : 0, side === 1 ? 255 : 0, 1);
        }
      }
    }
    context.putImageData(surface, 0, 0);
    if (plane.fixed !== null) this.label(plane, context, show);
  }

  /* Where the other two slices cut this one, and which way the patient faces. */
  label(plane, context, show) {
    const { canvas, x, y } = plane;
    if (show.lines) {
      const middle = (places, axis, length) => ((places.step > 0 ? this.at[axis] : places.count - 1 - this.at[axis]) + 0.5) * (length / places.count);
      context.fillStyle = "rgba(255, 255, 0, 0.75)";
      context.fillRect(Math.floor(middle(x, plane.across, canvas.width)), 0, 1, canvas.height);
      context.fillRect(0, Math.floor(middle(y, plane.down, canvas.height)), canvas.width, 1);
    }
    if (plane.letters !== null) {
      Object.assign(context, { font: "bold 16px sans-serif", textAlign: "center", textBaseline: "middle", lineWidth: 3, strokeStyle: "#000", fillStyle: "#fff" });
      const spots = [[12, canvas.height / 2], [canvas.width - 12, canvas.height / 2], [canvas.width / 2, 12], [canvas.width / 2, canvas.height - 12]];
      spots.forEach(([left, top], side) => {
        context.strokeText(plane.letters[side], left, top);
        context.fillText(plane.letters[side], left, top);
      });
    }
    const [index, count] = [this.at[plane.fixed] + 1, this.shape[plane.fixed]];
    plane.told.textContent = `${index} of ${count}`;
    plane.slider.setAttribute("aria-valuetext", `slice ${index} of ${count}`);
    canvas.dataset.slice = this.at[plane.fixed];
  }

  /* What somebody who cannot see the planes is told of them. */
  describe(text) {
    for (const plane of this.planes) plane.canvas.setAttribute("aria-label", plane.fixed === null ? text : `${plane.name} plane. ${text}`);
  }
}
