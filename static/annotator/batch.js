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
    if (timer) return event.preventDefault(); // a second click: the file is under way
    const checked = event.submitter && event.submitter.name === "check";
    words.textContent = checked ? "The file is being checked." : "The labels are being taken: the count above goes on with them.";
    timer = window.setInterval(checked ? () => {} : show, EVERY_MS);
  });

  // Come back to by the browser's own way, the page is as it was left.
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    window.clearInterval(timer);
    timer = 0;
    words.textContent = "";
  });
})();
