// Puts what the chosen order of the images asks for below the choice.
// Without this script the sentence is that of the order which is saved; the page of all orders has the others.
(() => {
  "use strict";

  const choice = document.getElementById("id_strategy");
  const help = document.getElementById("id_strategy_helptext");
  if (!choice || !help) return;

  const explanations = JSON.parse(choice.dataset.explanations); // by order

  function explain() {
    help.textContent = explanations[choice.value] ?? "";
  }

  choice.addEventListener("change", explain);
  explain();
})();
