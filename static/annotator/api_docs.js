// Swagger's page has a dark look of its own, but takes no notice of the browser's wish.
(() => {
  "use strict";

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  follow();
  dark.addEventListener("change", follow);
})();

// What Swagger writes is put right for those who hear the page: the description becomes a region with a name, headings
// go down one step at a time, choices have a name, and the buttons that open a route hold no link of their own.
(() => {
  "use strict";

  const LEVELS = { "h3.opblock-tag, .models > h4": 2, ".opblock h4": 3, ".opblock h5": 4 };

  function putRight(page) {
    const about = page.querySelector(".information-container");
    about?.setAttribute("role", "region");
    about?.setAttribute("aria-label", "About this API");
    for (const [headings, level] of Object.entries(LEVELS)) {
      for (const heading of page.querySelectorAll(headings)) heading.setAttribute("aria-level", level);
    }
    for (const row of page.querySelectorAll("tr[data-param-name]")) {
      row.querySelector("select")?.setAttribute("aria-label", row.dataset.paramName);
    }
    for (const example of page.querySelectorAll("pre.example")) example.tabIndex = 0; // they scroll
    for (const link of page.querySelectorAll("button.opblock-summary-control a[href]")) link.removeAttribute("href");
  }

  document.addEventListener("DOMContentLoaded", () => {
    const page = document.getElementById("swagger-ui");
    new MutationObserver(() => putRight(page)).observe(page, { childList: true, subtree: true });
  });
})();
