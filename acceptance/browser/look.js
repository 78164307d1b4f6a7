(() => {
  const parse = (text) => {
    const m = text.match(/rgba?\(([^)]*)\)/);
    if (!m) return null;
    const [r, g, b, a] = m[1].split(/[ ,/]+/).filter(Boolean).map(Number);
    return { r, g, b, a: a === undefined ? 1 : a };
  };
  const luminance = (c) => {
    const part = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * part(c.r) + 0.7152 * part(c.g) + 0.0722 * part(c.b);
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c && c.a > 0.5) return c;
    }
    return { r: 255, g: 255, b: 255, a: 1 };
  };
  const result = { wide: [], pale: [], texts: 0, lowest: 21 };
  const note = (list, text) => { if (list.length < 5) list.push(text); };
  result.background = luminance(behind(document.body));
  result.scripts = document.scripts.length;
  result.links = document.querySelectorAll('a:not([href^="#"]), link, form, iframe, img, object').length;
  const width = document.documentElement.clientWidth;
  const whole = document.documentElement.scrollWidth;
  if (whole > width) note(result.wide, "the page, " + whole + " of " + width);
  result.height = document.documentElement.scrollHeight;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.textContent.trim();
    const e = node.parentElement;
    if (!text || ["SCRIPT", "STYLE", "title"].includes(e.tagName)) continue;
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    result.texts++;
    const style = getComputedStyle(e);
    const c = parse(e.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [luminance(c), luminance(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    result.lowest = Math.min(result.lowest, ratio);
    const words = e.tagName.toLowerCase() + " “" + text.slice(0, 30) + "”";
    if (ratio < 4.5) note(result.pale, words + " " + ratio.toFixed(2));
    if (box.right > width + 1 || box.left < -1) note(result.wide, words + " " + Math.round(box.left) + " to " + Math.round(box.right));
  }
  return JSON.stringify(result);
})()
