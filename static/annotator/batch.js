// While labels from a file are taken, thousands of which need some seconds: says so, and how many images have theirs by now.
(() => {
  "use strict";

  const EVERY_MS = 1000;
  const form = document.querySelector("[data-labels]");
  if (!form) return;
  const words = form.querySelector("[data-labels-words]");
  let timer = 0;

  function show() {
    htmx.ajax("GET", form.dataset.labels, { target: "#counts", swap: "outerHTML" });
  }

  form.addEventListener("submit", (event) => {
    window.clearInterval(timer); // sent again after the browser's stop, or twice: nothing is counted twice
    const checked = event.submitter && event.submitter.name === "check";
    words.textContent = checked ? "The file is being checked." : "The labels are being taken: the count above goes on with them.";
    if (!checked) timer = window.setInterval(show, EVERY_MS);
  });

  // Come back to by the browser's own way, the page is as it was left.
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    window.clearInterval(timer);
    words.textContent = "";
  });
})();
