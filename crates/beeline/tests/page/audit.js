// What keeps people from reading or using the page, as far as that can be computed; a list of complaints.
(() => {
  const wrong = [];
  const visible = (element) => element.checkVisibility({ visibilityProperty: true });

  if (document.documentElement.scrollWidth > innerWidth) {
    wrong.push(`it is ${document.documentElement.scrollWidth} pixels wide`);
  }

  // https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ratio = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const text = texts.currentNode.data.trim();
    if (!text || !visible(element) || element.closest("svg title, .hidden, .skip, noscript, script")) continue;
    const style = getComputedStyle(element);
    const inMap = element.closest("svg");
    const back = inMap ? channels(getComputedStyle(element.parentElement.querySelector("rect")).fill) : ground(element);
    const found = ratio(channels(inMap ? style.fill : style.color), back);
    if (found < 4.5) wrong.push(`contrast of "${text}" is ${found.toFixed(2)}`);
    if (parseFloat(style.fontSize) < 11) wrong.push(`"${text}" is small: ${style.fontSize}`);
  }

  const panel = ground(document.querySelector("#map"));
  for (const path of document.querySelectorAll("#map path, .line path, .swatch")) {
    const found = ratio(channels(getComputedStyle(path).color), panel);
    if (found < 3) wrong.push(`contrast of a line, ${path.getAttribute("class")}, is ${found.toFixed(2)}`);
  }

  for (const control of document.querySelectorAll("button, input, select, summary, g[role=button]")) {
    const { width, height } = control.getBoundingClientRect();
    // https://www.w3.org/TR/WCAG22/#target-size-minimum
    if (visible(control) && (width < 24 || height < 24)) wrong.push(`${control.textContent} is ${width} by ${height} pixels`);
  }

  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  for (const id of ids.filter((id, place) => ids.indexOf(id) !== place)) wrong.push(`two elements are ${id}`);
  for (const element of document.querySelectorAll("[aria-labelledby], [aria-describedby], label[for]")) {
    const id = element.getAttribute("aria-labelledby") ?? element.getAttribute("aria-describedby") ?? element.htmlFor;
    if (!document.getElementById(id)) wrong.push(`nothing is ${id}`);
  }
  return wrong;
})()
