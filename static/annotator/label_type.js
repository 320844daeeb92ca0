// Of classes and a number's scale, shows what the chosen kind of label needs, and offers the orders that go with it.
// Without this script both are there, and the server takes the one that is asked for.
(() => {
  "use strict";

  const choice = document.getElementById("id_label_type");
  const strategy = document.getElementById("id_strategy");
  if (!choice || !strategy) return;

  const orders = JSON.parse(choice.dataset.orders); // by kind of label

  function show() {
    const allowed = orders[choice.value];
    for (const part of document.querySelectorAll("[data-label-type]")) part.hidden = part.dataset.labelType !== choice.value;
    for (const option of strategy.options) {
      option.hidden = !allowed.includes(option.value);
      option.disabled = option.hidden;
    }
    for (const group of strategy.querySelectorAll("optgroup")) {
      group.hidden = [...group.children].every((option) => option.hidden);
    }
    if (!allowed.includes(strategy.value)) {
      strategy.value = allowed[0];
      strategy.dispatchEvent(new Event("change"));
    }
  }

  choice.addEventListener("change", show);
  show();
})();
