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

/* Bounds are rounded outwards: a lower bound down, an upper bound up. The report's writer uses the same rule. */
function down(value, digits = 3) {
  const text = value.toFixed(digits);
  return Number(text) <= value ? text : (Number(text) - 10 ** -digits).toFixed(digits);
}

function up(value, digits = 3) {
  const text = value.toFixed(digits);
  return Number(text) >= value ? text : (Number(text) + 10 ** -digits).toFixed(digits);
}

function percent(share, digits = 1) {
  return `${down(100 * share, digits)} %`;
}

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
