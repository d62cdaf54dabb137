"use strict";
/* Switches beside the charts. */
for (const box of document.querySelectorAll("input[data-switch]")) {
  const panel = box.closest("[data-panel]");
  const lines = [...panel.querySelectorAll("[data-curve]")].filter((line) => line.dataset.curve === box.dataset.switch);
  const follow = () => lines.forEach((line) => line.classList.toggle("off", !box.checked));
  box.addEventListener("change", follow);
  follow();
}

const bands = byId("bands");
if (bands !== null) {
  const follow = () => byId("accuracy").classList.toggle("no-bands", !bands.checked);
  bands.addEventListener("change", follow);
  follow();
}

const perClass = byId("perclass-choice");
if (perClass !== null) {
  const follow = () => {
    for (const table of document.querySelectorAll(".perclass")) table.hidden = table.dataset.series !== perClass.value;
  };
  perClass.addEventListener("change", follow);
  follow();
}
