// What the page shows comes from clients, too: names of channels, headers, bodies, users.
// It goes into the page as text only, never as HTML.

export const $ = (id) => document.getElementById(id);

// el makes an element. Attributes that are null or false are left out.
export function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  attribute(e, attributes);
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

const svgSpace = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const e = document.createElementNS(svgSpace, tag);
  attribute(e, attributes);
  e.append(...children);
  return e;
}

export function attribute(e, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) e.removeAttribute(name);
    else if (e.getAttribute(name) !== String(value)) e.setAttribute(name, value === true ? "" : value);
  }
}

const unusable = '[aria-disabled="true"]';

// usable says whether a control can be used, or all that are in a fieldset. What cannot be
// used is not disabled: browsers take the focus from that, and whoever goes by keyboard
// would have to begin at the top.
export function usable(e, yes) {
  attribute(e, { "aria-disabled": !yes && "true" });
  for (const field of e.matches("input") ? [e] : e.querySelectorAll("input")) field.readOnly = Boolean(field.closest(unusable));
}

// Enter clicks too: the button that has the focus, or that of the form.
addEventListener("click", (e) => {
  if (!e.target.closest(unusable)) return;
  e.preventDefault();
  e.stopImmediatePropagation();
}, true);

// text changes an element's text, if it is another one: what has not changed is not read
// out again, and stays selected.
export function text(e, value) {
  value = String(value);
  if (e.textContent !== value) e.textContent = value;
}

// said shows what became of what somebody has done, and refused why it was not done.
export function said(e, words) {
  e.classList.remove("wrong");
  text(e, words);
}

export function refused(e, words) {
  e.classList.add("wrong");
  text(e, words);
}

// keyed makes the children of parent those of items, and keeps the ones that were there:
// key names an item, make makes its element, update fills it. An element that is moved
// keeps the focus, and one that goes leaves it to what is around.
export function keyed(parent, items, key, make, update) {
  const focused = parent.contains(document.activeElement) && document.activeElement;
  const old = new Map([...parent.children].map((e) => [e.dataset.key, e]));
  let before = null;
  for (const item of items) {
    const k = key(item);
    let e = old.get(k);
    old.delete(k);
    if (!e) {
      e = make(item);
      e.dataset.key = k;
    }
    const next = before ? before.nextElementSibling : parent.firstElementChild;
    if (e !== next) parent.insertBefore(e, next);
    update(e, item);
    before = e;
  }
  for (const e of old.values()) e.remove();
  if (focused && focused !== document.activeElement) (parent.contains(focused) ? focused : parent.closest("[tabindex]"))?.focus({ preventScroll: true });
}

// The lights differ in shape, not only in colour.
const shapes = {
  green: ["M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13z", "M5 8.2l2.2 2.2L11.2 6"],
  yellow: ["M8 1.2L15.3 14.4H.7z", "M8 5.8v4M8 12.1v.2"],
  red: ["M5 1h6l4 4v6l-4 4H5l-4-4V5z", "M5.5 5.5l5 5M10.5 5.5l-5 5"],
  over: ["M8 2a6 6 0 1 0 0 12a6 6 0 1 0 0-12z", "M5 8h6"],
  unknown: ["M8 2a6 6 0 1 0 0 12a6 6 0 1 0 0-12z", "M6.2 6.4a1.9 1.9 0 1 1 2.6 1.7c-.6.3-.8.7-.8 1.2M8 11.4v.1"],
};

// light shows a status in an element, with its word for screen readers.
export function light(e, status) {
  if (!shapes[status]) status = "unknown";
  if (e.dataset.light === status) return;
  e.dataset.light = status;
  const [outline, sign] = shapes[status];
  e.replaceChildren(svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: outline, class: "shape" }), svg("path", { d: sign, class: "sign" })));
}
