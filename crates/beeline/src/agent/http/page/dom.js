// Elements that are changed as little as possible, so that focus and selection stay.

/** Says something; what it says already is not said again to a screen reader. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** One element for each item, made, changed and removed with it. */
export function keep(elements, items, key, make, change) {
  const gone = new Set(elements.keys());
  for (const item of items) {
    const id = key(item);
    gone.delete(id);
    if (!elements.has(id)) elements.set(id, make(item));
    change(elements.get(id), item);
  }
  for (const id of gone) {
    elements.get(id).remove();
    elements.delete(id);
  }
}
