// Cards to go on with while there is no connection, the next first, each with its picture loaded ahead. The server holds
// their images for this tab as long as the tab prolongs them; they live in the page, so no other tab or person has them.
(() => {
  "use strict";

  const page = document.getElementById("annotate");
  if (!page) return;

  const ENOUGH = 15;
  const SOON = 3000; // so long after the last time when there are not enough
  const PATIENCE = 15000;
  const spent = new Set(); // images that were answered: not to be shown again
  const entries = new WeakMap(); // a card made here -> its entry
  let cards = [];
  let later = 15000; // and so long when there are, until the server says otherwise
  let askedAt = -Infinity;
  let asking = false;
  let had = false;

  const card = () => document.getElementById("card");
  const ready = () => cards.filter((entry) => (
    entry.loaded && !spent.has(entry.image) && entry.image !== Number(card().dataset.image)
  ));

  function load(entry) {
    const picture = new Image();
    picture.fetchPriority = "low";
    picture.decoding = "sync";
    picture.addEventListener("load", () => { entry.loaded = true; });
    picture.src = entry.src;
    return Object.assign(entry, { picture });
  }

  function adopt(found) {
    const before = new Map(cards.map((entry) => [entry.query, entry]));
    cards = found.map((entry) => (before.has(entry.query) ? Object.assign(before.get(entry.query), entry) : load(entry)));
    had = had || cards.length > 0;
  }

  // Prolong what is held and take what would come next by now; nothing while answers wait, or on a card of the reserve.
  async function sync(forced) {
    const { settled, token } = window.foresight;
    const due = performance.now() - askedAt > (ready().length < ENOUGH ? SOON : later);
    if (asking || !settled() || document.visibilityState !== "visible" || !card().dataset.preload) return;
    if (!forced && !due) return;
    asking = true;
    askedAt = performance.now();
    const reply = await fetch(page.dataset.reserve, {
      method: "POST",
      body: new URLSearchParams({ csrfmiddlewaretoken: token() }),
      headers: { "X-Requested-With": "fetch" },
      credentials: "same-origin",
      signal: AbortSignal.timeout(PATIENCE),
    }).catch(() => null);
    const found = reply && reply.status === 200 ? await reply.json().catch(() => null) : null;
    asking = false;
    if (!found) return;
    later = 1000 * found.again_after;
    adopt(found.cards);
  }

  function setPrediction(button, prediction) {
    const index = Number(button.value.split(":")[1]);
    const value = prediction ? (prediction.find(([one]) => one === index) || [index, 0])[1] : 0;
    button.querySelector(".class-bar").value = value;
    button.querySelector(".class-percent")?.remove();
    if (!prediction) return;
    const percent = document.createElement("span");
    const spoken = document.createElement("span");
    percent.className = "class-percent";
    spoken.className = "visually-hidden";
    spoken.textContent = " per cent predicted";
    const sign = document.createElement("span");
    sign.setAttribute("aria-hidden", "true");
    sign.textContent = " %";
    percent.append(String(Math.round(100 * value)), spoken, sign);
    button.querySelector(".class-name").after(percent);
  }

  function setForm(form, entry) {
    form.elements.query.value = entry.query;
    form.elements.comment.value = "";
    form.querySelector("#comment").open = false;
    if (form.querySelector("#number-panel")) window.foresightNumber.set(form, entry.suggestion);
    for (const button of form.querySelectorAll(".class-button")) {
      button.hidden = false;
      setPrediction(button, entry.prediction);
    }
    const filter = form.querySelector("#class-filter");
    if (filter) filter.value = "";
    form.querySelector('[data-action="undo"]').disabled = false;
  }

  function setPicture(fresh, entry, number) {
    const { picture, width, height } = entry;
    Object.assign(picture, { id: "picture", width, height, alt: `Image ${number}, to be labelled` });
    picture.className = width < 129 && height < 129 ? "picture tiny" : "picture";
    fresh.querySelector("#picture").replaceWith(picture);
    fresh.querySelector("#image-box").dataset.zoom = "0";
  }

  // The card on screen once more, with another image.
  function make(entry) {
    const fresh = card().cloneNode(true);
    const number = Number(card().dataset.number) + 1;
    fresh.removeAttribute("aria-busy");
    for (const name of ["answered", "preload", "leaseUntil"]) delete fresh.dataset[name];
    Object.assign(fresh.dataset, { query: entry.query, image: entry.image, number, reserve: "" });
    for (const notice of fresh.querySelectorAll(":scope > .notice.error")) notice.remove();
    for (const busy of fresh.querySelectorAll(".htmx-request")) busy.classList.remove("htmx-request");
    fresh.querySelector("#lease-warning").hidden = true;
    fresh.querySelector("#card-title").textContent = `Image ${number}: ${card().dataset.question}`;
    const [reason, model] = fresh.querySelectorAll(".why p");
    reason.textContent = entry.reason;
    model.textContent = entry.model;
    setPicture(fresh, entry, number);
    setForm(fresh.querySelector("#answer-form"), entry);
    entries.set(fresh, entry);
    return fresh;
  }

  function put(node) {
    card().replaceWith(node);
    page.dispatchEvent(new CustomEvent("foresight:card"));
  }

  // Show the next card; false when there is none.
  function next() {
    const [entry] = ready();
    if (!entry || !card().dataset.query) return false;
    cards = cards.filter((one) => one !== entry);
    const fresh = make(entry);
    put(fresh);
    window.htmx.process(fresh);
    return true;
  }

  // Show a card that was on screen before; the one that is there now is the next again.
  function back(node) {
    const entry = entries.get(card());
    if (entry && card() !== node) cards = [entry, ...cards.filter((one) => one.query !== entry.query)];
    spent.delete(Number(node.dataset.image));
    node.removeAttribute("aria-busy");
    delete node.dataset.answered;
    put(node);
  }

  window.foresightReserve = {
    sync, next, back,
    spend: (node) => spent.add(Number(node.dataset.image)),
    count: () => ready().length,
    had: () => had,
  };
})();
