"use strict";
/* Helpers of the page's scripts. Text from data only ever becomes text nodes. */
document.documentElement.classList.add("scripted");

const byId = (id) => document.getElementById(id);

function readData(id) {
  const holder = byId(id);
  return holder === null ? null : JSON.parse(holder.textContent);
}

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) if (child !== null && child !== undefined) made.append(child);
  return made;
}

function svgElement(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/* Bounds are rounded outwards on the shortest spelling of a number, in whole-number arithmetic: the rule of the report's
   writer (certimed.certificates.shown), digit for digit. Values are finite and not negative. */
function shown(value, side, places, scale = 1) {
  const [, whole, part = "", power = "0"] = /^(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(value));
  const shift = places + Number(power) - part.length;
  let digits = BigInt(whole + part) * BigInt(scale) * 10n ** BigInt(Math.max(shift, 0));
  const unit = 10n ** BigInt(Math.max(-shift, 0));
  digits = digits / unit + (side === "upper" && digits % unit > 0n ? 1n : 0n);
  const text = String(digits).padStart(places + 1, "0");
  return places > 0 ? `${text.slice(0, -places)}.${text.slice(-places)}` : text;
}

const down = (value, digits = 3) => shown(value, "lower", digits);
const up = (value, digits = 3) => shown(value, "upper", digits);
const percent = (share, digits = 1) => `${shown(share, "lower", digits, 100)} %`;

/* What is surely left of a radius after a loss, and of it after a division by a norm: both rounded down. */
const reduced = (value, loss) => (loss === 0 ? value : Math.max(0, (value - loss) * (1 - 2 ** -50)));
const divided = (value, norm) => (norm === 1 ? value : (value / norm) * (1 - 2 ** -52));

function fill(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => element("option", { value }, text)));
}

function debounced(action, wait = 120) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  };
}

/* Copies the text beside a button; where the browser refuses, it is selected instead. */
for (const button of document.querySelectorAll("[data-copy]")) {
  const text = button.parentElement.querySelector("pre");
  const said = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Selected; copy with the keyboard";
    }
    setTimeout(() => { button.textContent = said; }, 2500);
  });
}

/* A table that is wider than its place says so. */
const hints = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    const hidden = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("wider", hidden && box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  }
};
for (const box of document.querySelectorAll(".scroll")) box.addEventListener("scroll", hints, { passive: true });
addEventListener("resize", hints);
addEventListener("toggle", hints, true);
hints();

/* On paper nothing can be opened. */
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not([open])")) {
    one.dataset.closed = "";
    one.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const one of document.querySelectorAll("details[data-closed]")) {
    one.open = false;
    delete one.dataset.closed;
  }
});
