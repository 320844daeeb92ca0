// One card after the other: focus, client key, answer time, the pictures that may follow, and the lease.
(() => {
  "use strict";

  const page = document.getElementById("annotate");
  if (!page) return;

  const { newKey, token, tell, refresh, settled } = window.foresight;
  const reserve = window.foresightReserve;
  const LEASE = 1000 * Number(page.dataset.leaseSeconds);
  const HEARTBEAT = Math.min(60000, LEASE / 3);
  const WARNING = Math.min(30000, LEASE / 4);
  const ASIDE = 1500; // after a card has come, the reserve is brought up to date if that is due
  const SWIPE = 70;
  let shownAt = 0;
  let leaseUntil = 0;
  let filtering = false;
  let touch = null;

  const card = () => document.getElementById("card");
  const visible = () => document.visibilityState === "visible";

  function begin() {
    const now = card();
    shownAt = performance.now();
    leaseUntil = now.dataset.reserve === undefined ? shownAt + LEASE : Infinity;
    for (const input of now.querySelectorAll("[name=client_key]")) input.value = newKey();
    const answers = document.getElementById("answers"); // each answer brings one more
    while (answers.childElementCount > Number(answers.dataset.most)) answers.lastElementChild.remove();
    if (!now.dataset.query) return;
    document.getElementById("picture").decode().catch(() => {
      if (now === card()) tell("The image could not be shown. Reload the page, or skip it.");
    });
    if (!now.dataset.preload) return;
    setTimeout(() => preload(now, 2), 300);
    setTimeout(() => reserve.sync(), ASIDE); // whichever card is there by then: quick people need a reserve, too
  }

  // The pictures that could follow each answer, decoded ahead; the learner may need a moment to know them.
  async function preload(forCard, tries) {
    if (forCard !== card()) return;
    const headers = { "HX-Request": "true" };
    const reply = await fetch(forCard.dataset.preload, { headers, credentials: "same-origin" }).catch(() => null);
    if (reply && reply.status === 200) {
      document.getElementById("preload").innerHTML = await reply.text();
      for (const link of document.querySelectorAll("#preload link")) {
        const picture = new Image();
        picture.src = link.href;
        picture.decode().catch(() => {});
      }
    } else if (tries > 0) {
      setTimeout(() => preload(forCard, tries - 1), 400);
    }
  }

  async function heartbeat() {
    if (!visible() || !card().dataset.query || !settled()) return;
    const body = new URLSearchParams({ csrfmiddlewaretoken: token() });
    const headers = { "X-Requested-With": "fetch" };
    const asked = performance.now();
    const forCard = card();
    const reply = await fetch(page.dataset.heartbeat, { method: "POST", body, headers, credentials: "same-origin" }).catch(() => null);
    if (reply && reply.status === 204) {
      leaseUntil = Math.max(leaseUntil, asked + LEASE);
      watch();
      reserve.sync(true);
    } else if (reply && reply.status === 410 && settled() && forCard === card()) { // not one that was just answered
      const before = document.getElementById("picture")?.getAttribute("src");
      await refresh().catch(() => {});
      const after = document.getElementById("picture")?.getAttribute("src");
      if (before !== after) tell("Your time with the last image had run out, and it went back to the others. This is another one.");
    }
  }

  function watch() {
    const warning = document.getElementById("lease-warning");
    if (warning) warning.hidden = leaseUntil - performance.now() > WARNING;
  }

  document.addEventListener("htmx:configRequest", (event) => {
    if (event.target.id !== "answer-form") return;
    event.detail.parameters.seconds = ((performance.now() - shownAt) / 1000).toFixed(3);
    event.detail.parameters.newest = document.querySelector("#answers [data-answer]")?.dataset.answer ?? "";
  }, true); // before the answer is written down
  page.addEventListener("foresight:card", () => {
    begin();
    if (!document.querySelector("dialog[open]")) document.getElementById("card-title").focus({ preventScroll: true });
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.requestConfig.verb === "post") card().setAttribute("aria-busy", "true");
  });
  document.addEventListener("htmx:beforeSwap", () => { filtering = document.activeElement?.id === "class-filter"; });
  document.addEventListener("htmx:afterSettle", (event) => {
    const target = event.detail.target.id;
    if (target === "card") begin();
    if (document.querySelector("dialog[open]")) return;
    const next = { card: filtering ? "class-filter" : "card-title", correction: "correction-answer" }[target];
    const typed = document.activeElement?.id === "number-value" && document.activeElement.value;
    if (!typed) document.getElementById(next)?.focus({ preventScroll: target === "card" }); // who types on, goes on
  });

  setInterval(heartbeat, HEARTBEAT);
  setInterval(watch, 1000);
  document.addEventListener("visibilitychange", heartbeat);
  window.addEventListener("pageshow", (event) => { if (event.persisted) heartbeat(); });
  window.addEventListener("pagehide", () => {
    navigator.sendBeacon(page.dataset.leave, new URLSearchParams({ csrfmiddlewaretoken: token() }));
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest('[data-action="keep"]')) heartbeat();
    if (!event.target.closest('[data-action="leave-correction"]')) return;
    event.preventDefault();
    document.getElementById("correction").replaceChildren();
    document.getElementById("card-title").focus();
  });

  // Touch: left skips, right takes back.
  document.addEventListener("touchstart", (event) => {
    const inside = event.target.closest("#image-box");
    touch = inside && inside.dataset.zoom === "0" && event.touches.length === 1
      ? { x: event.touches[0].clientX, y: event.touches[0].clientY } : null;
  }, { passive: true });
  document.addEventListener("touchend", (event) => {
    if (!touch) return;
    const dx = event.changedTouches[0].clientX - touch.x;
    const dy = event.changedTouches[0].clientY - touch.y;
    touch = null;
    if (Math.abs(dx) < SWIPE || Math.abs(dy) > Math.abs(dx) / 2) return;
    const button = document.querySelector(`[data-action="${dx < 0 ? "skip" : "undo"}"]`);
    if (button && !button.disabled) button.click();
  }, { passive: true });

  begin();
})();
