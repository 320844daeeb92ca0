// One card after the other: focus, client key, answer time, the pictures that may follow, and the lease.
(() => {
  "use strict";

  const page = document.getElementById("annotate");
  if (!page) return;

  const HEARTBEAT = 60000;
  const WARNING = 30000;
  const SWIPE = 70;
  let shownAt = performance.now();
  let leaseUntil = 0;
  let touch = null;

  const card = () => document.getElementById("card");

  function begin() {
    const now = card();
    shownAt = performance.now();
    for (const input of document.querySelectorAll("[name=client_key]")) input.value = window.foresight.newKey();
    if (!now.dataset.query) return;
    leaseUntil = Date.parse(now.dataset.leaseUntil);
    setTimeout(() => preload(now, 2), 300);
  }

  // The pictures that could follow each answer, decoded ahead; the learner may need a moment to know them.
  async function preload(forCard, tries) {
    if (forCard !== card() || !forCard.dataset.preload) return;
    const reply = await fetch(forCard.dataset.preload, { credentials: "same-origin" }).catch(() => null);
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
    if (document.visibilityState !== "visible" || !card().dataset.query) return;
    const body = new URLSearchParams({ csrfmiddlewaretoken: window.foresight.token() });
    const headers = { "X-Requested-With": "fetch" };
    const reply = await fetch(page.dataset.heartbeat, { method: "POST", body, headers, credentials: "same-origin" }).catch(() => null);
    if (!reply) return;
    if (reply.status === 204) {
      leaseUntil = Date.now() + 300000;
      warn(false);
    } else if (reply.status === 410 && window.foresight.waiting() === 0) {
      window.htmx.ajax("GET", page.dataset.page, { target: "#card", swap: "outerHTML" });
    }
  }

  function warn(near) {
    const warning = document.getElementById("lease-warning");
    if (warning && warning.hidden === near) warning.hidden = !near;
  }

  document.addEventListener("htmx:configRequest", (event) => {
    const form = event.target.closest("form");
    if (!form || form.id !== "answer-form") return;
    event.detail.parameters.seconds = ((performance.now() - shownAt) / 1000).toFixed(3);
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.requestConfig.verb === "post") card().setAttribute("aria-busy", "true");
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target.id !== "card") return;
    begin();
    const title = document.getElementById("card-title");
    if (title && !document.querySelector("dialog[open]")) title.focus({ preventScroll: true });
  });

  setInterval(heartbeat, HEARTBEAT);
  setInterval(() => warn(Boolean(card().dataset.query) && leaseUntil - Date.now() < WARNING), 1000);
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible") heartbeat(); });
  document.addEventListener("click", (event) => { if (event.target.closest('[data-action="keep"]')) heartbeat(); });
  window.addEventListener("pagehide", () => {
    const body = new URLSearchParams({ csrfmiddlewaretoken: window.foresight.token() });
    navigator.sendBeacon(page.dataset.leave, body);
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
