// Shows, while classes are typed, which key each will get. The server decides; this only looks ahead.
(() => {
  "use strict";

  const digits = "1234567890";

  function parse(text) {
    return text
      .split("\n")
      .filter((line) => line.trim())
      .map((line) => {
        const bar = line.lastIndexOf("|");
        const name = bar < 0 ? line : line.slice(0, bar);
        return { name: name.trim(), key: bar < 0 ? "" : line.slice(bar + 1).trim().toLowerCase() };
      });
  }

  function withKeys(classes, used) {
    const taken = new Set([...used, ...classes.map((found) => found.key)]);
    const free = [...digits].filter((digit) => !taken.has(digit));
    return classes.map((found) => ({ name: found.name, key: found.key || free.shift() || "" }));
  }

  function draw(area, list) {
    const used = [...document.querySelectorAll("input[name^=classes-][name$=-key]")].map((input) => input.value);
    const classes = withKeys(parse(area.value), used);
    list.replaceChildren(
      ...classes.map((found) => {
        const item = document.createElement("li");
        item.className = "badge";
        const key = document.createElement("kbd");
        key.textContent = found.key || "–";
        item.append(key, ` ${found.name}`);
        return item;
      }),
    );
    list.hidden = classes.length === 0;
  }

  for (const area of document.querySelectorAll("textarea[data-classes]")) {
    const list = area.closest("form").querySelector("[data-class-preview]");
    area.addEventListener("input", () => draw(area, list));
    draw(area, list);
  }
})();
