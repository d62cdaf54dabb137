"use strict";
/* Moves the bars of the forest plots to the radius of their slider. */
(() => {
  const data = readData("forest-data");
  if (data === null) return;
  for (const plot of data.plots) {
    const slider = byId(plot.key + "-r");
    const bars = byId(plot.key).querySelectorAll(".interval");
    slider.addEventListener("input", () => {
      const step = Number(slider.value);
      byId(plot.key + "-v").textContent = shown(plot.radii[step], "lower", 4);
      bars.forEach((bar, row) => {
        const [left, right] = plot.rows[row][step];
        bar.setAttribute("x1", left);
        bar.setAttribute("x2", right);
      });
    });
  }
})();
