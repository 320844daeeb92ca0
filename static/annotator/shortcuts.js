// Keys: one for each class, and those of the actions, which a user can change or switch off in this browser.
(() => {
  "use strict";

  const page = document.getElementById("annotate");
  if (!page) return;

  const number = window.foresightNumber; // where a number is asked for
  const store = `foresight-keys-${page.dataset.user}`;
  const usual = {
    skip: " ", undo: "z", flag: "f", comment: "c", filter: "/", guidelines: "h", help: "?",
    "zoom-in": "=", "zoom-out": "-", fit: "\\", take: "m",
  };
  const saved = JSON.parse(localStorage.getItem(store) || "{}");
  let on = saved.on !== false;
  let keys = { ...usual, ...saved.keys };

  const save = () => localStorage.setItem(store, JSON.stringify({ on, keys }));
  const spoken = (key) => (key === " " ? "Space" : key);
  const press = (button) => { if (button && !button.disabled) button.click(); return Boolean(button); };
  const action = (name) => press(document.querySelector(`[data-action="${name}"]`));

  function comment() {
    const details = document.getElementById("comment");
    if (!details) return false;
    details.open = true;
    document.getElementById("comment-text").focus();
    return true;
  }

  function zoom(change) {
    const box = document.getElementById("image-box");
    if (!box) return false;
    const level = change === 0 ? 0 : Number(box.dataset.zoom) + change;
    const middle = [box.scrollLeft + box.clientWidth / 2, box.scrollTop + box.clientHeight / 2];
    const [width, height] = [box.scrollWidth, box.scrollHeight];
    box.dataset.zoom = Math.min(Math.max(level, 0), 4);
    box.scrollLeft = (middle[0] * box.scrollWidth) / width - box.clientWidth / 2;
    box.scrollTop = (middle[1] * box.scrollHeight) / height - box.clientHeight / 2;
    return true;
  }

  function filter() {
    const field = document.getElementById("class-filter");
    if (field) field.focus();
    return Boolean(field);
  }

  const actions = {
    skip: () => action("skip"),
    undo: () => action("undo"),
    flag: () => action("flag"),
    comment,
    filter,
    guidelines: () => action("guidelines"),
    help: () => action("help"),
    "zoom-in": () => zoom(1),
    "zoom-out": () => zoom(-1),
    fit: () => zoom(0),
    take: () => Boolean(number) && action("take"),
  };

  const typing = (event) => (
    event.target.closest("input, textarea, select, dialog[open], [contenteditable]") && !number?.leaves(event)
  );

  function run(event) {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (number?.press(event)) return true;
    if (key === " " && event.target.closest("button, summary, a")) return false;
    const button = classOf(key);
    if (button) return press(button);
    const name = Object.keys(keys).find((one) => keys[one] === key) || (key === "Backspace" ? "undo" : "");
    return name ? actions[name]() : false;
  }

  document.addEventListener("keydown", (event) => {
    if (!on || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.repeat && !number?.repeats(event.key)) return;
    if (event.defaultPrevented || typing(event)) return;
    if (run(event)) event.preventDefault();
  });

  // Many classes: type a part of the name, Enter takes the first that is left.
  document.addEventListener("input", (event) => {
    if (event.target.id !== "class-filter") return;
    const text = event.target.value.trim().toLowerCase();
    for (const button of document.querySelectorAll(".class-button")) button.hidden = !button.dataset.name.includes(text);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "class-filter" || event.key !== "Enter") return;
    event.preventDefault();
    if (event.target.value.trim()) press(document.querySelector(".class-button:not([hidden])"));
  });

  // The dialog in which keys are changed.
  function fill() {
    document.getElementById("keys-on").checked = on;
    for (const input of document.querySelectorAll("[data-remap]")) input.value = spoken(keys[input.dataset.remap]);
  }
  function classOf(key) {
    return Array.from(document.querySelectorAll("[data-key]")).find((button) => button.dataset.key.toLowerCase() === key);
  }

  // A key that another action has is exchanged with it: no action is left without one.
  function remap(name, key) {
    const trouble = document.getElementById("key-trouble");
    const taken = classOf(key);
    trouble.textContent = taken ? `“${key}” is the key of the class “${taken.querySelector(".class-name").textContent}”.` : "";
    trouble.hidden = !taken;
    if (taken) return;
    const other = Object.keys(keys).find((one) => keys[one] === key);
    if (other) keys[other] = keys[name];
    keys[name] = key;
    save();
    fill();
  }

  document.addEventListener("keydown", (event) => {
    const input = event.target.closest("[data-remap]");
    if (!input || event.key === "Tab" || event.key === "Escape" || event.key === "Shift") return;
    event.preventDefault();
    if (event.key.length === 1) remap(input.dataset.remap, event.key.toLowerCase());
  });
  document.getElementById("keys-on").addEventListener("change", (event) => { on = event.target.checked; save(); });
  document.querySelector('[data-action="reset-keys"]').addEventListener("click", () => { keys = { ...usual }; save(); fill(); });

  document.addEventListener("click", (event) => {
    const zoomer = event.target.closest('[data-action^="zoom-"]');
    if (zoomer) actions[zoomer.dataset.action]();
    const opener = event.target.closest("[data-dialog]");
    if (!opener) return;
    fill();
    document.getElementById(opener.dataset.dialog).showModal();
  });
})();
