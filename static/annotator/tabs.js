// On a narrow screen the row of a project's pages goes on beyond the edge: the page one is on is brought into view.
(() => {
  "use strict";

  const here = document.querySelector(".tabs-inner > [aria-current]");
  if (!here) return;
  const row = here.parentElement;
  // Not scrollIntoView: it would move the page, too, where the browser has just put it back to its place.
  row.scrollLeft += Math.ceil(Math.max(0, here.getBoundingClientRect().right - row.getBoundingClientRect().right));
})();
