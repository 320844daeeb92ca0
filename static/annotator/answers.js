// Every answer is written down in this browser before it is sent, and crossed out when the server has decided on it:
// what could not be sent goes later, in order, under its client key (the server knows it): never lost, never twice.
// One entry an answer, so that two tabs cannot overwrite each other's; entries are kept apart by user.
// Meanwhile the cards of the reserve go on, and their answers wait behind the first.
(() => {
  "use strict";

  const page = document.getElementById("annotate");
  if (!page) return;

  const reserve = window.foresightReserve;
  const store = `foresight-answer-${page.dataset.user}-`;
  const trouble = document.getElementById("trouble");
  const PATIENCE = 15000; // for one request
  const ELSEWHERE = 20000; // so long may another tab's answer be under way before this tab sends it
  const UNDECIDED = [0, 401, 403, 408, 425, 429];
  const EXPIRED = "Your sign-in has expired. Your answer is kept in this browser.";
  const TOO_OLD = "This page was open too long: reload it. Your answer is kept in this browser.";
  const NO_LINE = "You are offline, or the server does not answer. ";
  const KEPT = "Your answer is kept in this browser: it will be sent, and the next image shown, as soon as the line is back.";
  const GO_ON = "Your answers are kept in this browser and will be sent, in order, as soon as the line is back. "
    + "Go on with the reserve: its predictions are those of the moment when the cards were laid aside.";
  const USED_UP = "The reserve is used up. Your answers are kept in this browser: they will be sent, and the next image "
    + "shown, as soon as the line is back.";
  const NOT_OFFLINE = "An earlier answer can be corrected when the line is back.";
  const NOT_BACK = "That answer may have reached the server: it can be taken back when the line is back.";
  const TO_READ = 8000; // so long such a sentence stays
  const CALM = 600; // so long nothing is answered after a card has changed by itself
  let sending = false;
  let posting = false; // the form's own request is under way: what it carries does not wait
  let stale = false; // the card of now is still to be asked for
  let pause = 1000;
  let timer = 0;
  let calmUntil = 0;
  let refusedAt = -Infinity; // when the page said what cannot be done just now
  let passed = []; // the cards that were answered since the line broke, with the names of what waits

  const card = () => document.getElementById("card");
  const answered = () => card().dataset.answered !== undefined;

  const decided = (status) => status < 500 && !UNDECIDED.includes(status);
  // What a proxy says while the server is away ("404" of some) decides nothing: the server's own refusals bear an id.
  const statusOf = (status, id) => (status < 400 || id ? status : 0);

  function waiting() {
    return Object.keys(localStorage).filter((name) => name.startsWith(store)).sort()
      .map((name) => ({ name, ...JSON.parse(localStorage.getItem(name)) }))
      .filter((answer) => answer.path.startsWith(page.dataset.page) || Date.now() - answer.at > ELSEWHERE);
  }

  // Signing in again, in any tab, changes the token: the cookie has the present one, the forms may not.
  function token() {
    const cookie = document.cookie.split("; ").find((part) => part.startsWith("csrftoken="));
    return cookie ? cookie.slice(10) : document.querySelector("input[name=csrfmiddlewaretoken]").value;
  }

  // A version 4 UUID; crypto.randomUUID is missing where the page came over plain HTTP.
  function newKey() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
  }

  function say(text, urgent) {
    const state = document.getElementById("save-state");
    state.textContent = text;
    state.classList.toggle("waiting", Boolean(urgent));
  }

  function tell(text, link) {
    if (trouble.firstChild && trouble.firstChild.textContent === text) return; // it was read out already
    trouble.textContent = text;
    if (link) {
      const anchor = document.createElement("a");
      anchor.href = `${page.dataset.signIn}?next=${encodeURIComponent(page.dataset.page)}`;
      anchor.textContent = "Sign in";
      trouble.append(" ", anchor);
    }
    trouble.hidden = !text;
  }

  function speak(text) {
    document.getElementById("status").textContent = text;
  }

  function showWaiting() {
    const count = waiting().length;
    const left = reserve.count();
    if (answered()) card().setAttribute("aria-busy", "true");
    if (count === 0) return;
    const more = left ? `, ${left} more card${left === 1 ? "" : "s"} in reserve` : ", the reserve is used up";
    say(`Offline: ${count} waiting${reserve.had() ? more : ""}`, true);
  }

  // `tried`: it may have reached the server. The order is that of the names, whatever the clock does.
  function keep(config, tried) {
    const fields = Object.fromEntries(config.formData.entries());
    delete fields.csrfmiddlewaretoken;
    const at = Math.max(Date.now(), ...waiting().map((answer) => answer.at + 1));
    const name = `${store}${at}-${fields.client_key}`;
    localStorage.setItem(name, JSON.stringify({ path: config.path, fields, at, tried }));
    return name;
  }

  function refuse(text) {
    refusedAt = performance.now();
    tell(text);
  }

  // The card on screen is done with: the next of the reserve, or none until the line is back.
  function goOn(name, forWhat) {
    card().dataset.answered = "";
    passed.push({ name, node: card() });
    if (reserve.next()) speak(`${forWhat} Image ${card().dataset.number}, from the reserve.`);
    else speak(forWhat);
  }

  function takeBack() {
    const last = passed.at(-1);
    const answer = last && waiting().find((one) => one.name === last.name);
    if (!answer || answer.tried) return refuse(NOT_BACK);
    localStorage.removeItem(last.name);
    passed.pop();
    reserve.back(last.node);
    showWaiting();
    speak(`Answer taken back. Image ${card().dataset.number}.`);
    return tell(NO_LINE + GO_ON);
  }

  // While something waits, nothing overtakes it.
  function putAside(config) {
    if (config.path.endsWith("/undo/")) return takeBack();
    if (!config.path.endsWith("/answer/")) return refuse(NO_LINE + NOT_OFFLINE);
    if (answered()) return showWaiting();
    reserve.spend(card());
    const name = keep(config, false);
    stale = true;
    goOn(name, "Answer kept.");
    showWaiting();
    return tell(NO_LINE + (answered() ? USED_UP : GO_ON));
  }

  // The first that did not arrive. What it asked for is unknown: the card it was sent from is done with.
  function failed(config, status) {
    const name = Object.keys(localStorage).find((one) => one.startsWith(store) && one.endsWith(config.formData.get("client_key")));
    const leaves = !config.path.includes("/correct/");
    if (leaves) stale = true;
    if (leaves && (status === 0 || status >= 500)) goOn(name, config.path.endsWith("/undo/") ? "Undo kept." : "Answer kept.");
    else if (leaves) card().dataset.answered = "";
    wait(status);
  }

  function crossOut(key) {
    for (const name of Object.keys(localStorage)) {
      if (name.startsWith(store) && name.endsWith(key)) localStorage.removeItem(name);
    }
  }

  // Say why nothing was decided, and try again by itself where that can help.
  function wait(status) {
    showWaiting();
    if (status === 401) return tell(EXPIRED, true);
    if (status === 403) return tell(TOO_OLD);
    if (performance.now() - refusedAt > TO_READ) tell(NO_LINE + (!answered() ? GO_ON : reserve.had() ? USED_UP : KEPT));
    clearTimeout(timer);
    timer = setTimeout(send, pause);
    pause = Math.min(pause * 2, 15000);
  }

  const post = (answer) => fetch(answer.path, {
    method: "POST",
    body: new URLSearchParams({ ...answer.fields, csrfmiddlewaretoken: token() }),
    headers: { "HX-Request": "true" },
    credentials: "same-origin",
    redirect: "error",
    signal: AbortSignal.timeout(PATIENCE),
  });

  const reason = (html) => new DOMParser().parseFromString(html, "text/html").querySelector("#card [role=alert]:not([hidden])");

  function markTried({ name, path, fields, at }) {
    localStorage.setItem(name, JSON.stringify({ path, fields, at, tried: true }));
  }

  // Ask for the card of now. Nobody's answer to the one on screen may meet the other, and nothing typed is thrown away:
  // a card of the reserve that somebody writes on stays, its answer is sent like any other.
  async function show() {
    const open = !answered();
    const written = ["comment-text", "number-value"].some((id) => document.getElementById(id)?.value);
    if (open && written) {
      stale = false;
      return;
    }
    await refresh();
    if (stale || !open) return;
    calmUntil = performance.now() + CALM;
    speak(`The line is back: this is the card of now. ${document.getElementById("card-title").textContent}`);
  }

  // Send what waits, one after the other; then ask for the card of now. Returns the status that stopped it, if any.
  async function flush() {
    const refused = [];
    do {
      for (let [answer] = waiting(); answer; [answer] = waiting()) {
        markTried(answer);
        const reply = await post(answer);
        const status = statusOf(reply.status, reply.headers.get("X-Request-ID"));
        if (!decided(status)) return status;
        localStorage.removeItem(answer.name);
        stale = true;
        say(`Sending: ${waiting().length} waiting`, true);
        if (reply.status >= 400) refused.push(reason(await reply.text())?.textContent || `The server said ${reply.status}.`);
      }
      if (stale) await show();
      if (stale) return 0;
    } while (waiting().length);
    pause = 1000;
    say("Saved");
    tell(refused.length ? `An answer that waited was not taken. ${refused.join(" ")}` : "");
    return null;
  }

  async function send() {
    if (sending || posting || (!stale && waiting().length === 0)) return;
    sending = true;
    const stopped = await flush().catch(() => 0);
    sending = false;
    if (stopped !== null) wait(stopped);
  }

  function refresh() {
    stale = true;
    return window.htmx.ajax("GET", page.dataset.page, { source: page, target: "#card", swap: "outerHTML" });
  }

  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.verb !== "post") return;
    event.detail.parameters.csrfmiddlewaretoken = token();
    if (performance.now() < calmUntil) return event.preventDefault();
    if (!stale && waiting().length === 0) return;
    event.preventDefault(); // the order of the answers is kept: first what waits
    putAside(event.detail);
    send();
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    const config = event.detail.requestConfig;
    if (config.verb !== "post") return;
    posting = true;
    keep(config, true);
    if (config.path.endsWith("/answer/")) {
      reserve.spend(card());
      card().dataset.answered = "";
    }
    say("Saving…");
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const { requestConfig: config, xhr } = event.detail;
    if (config.verb !== "post") return;
    posting = false;
    const status = statusOf(xhr.status, xhr.getResponseHeader("X-Request-ID"));
    if (!decided(status)) return failed(config, status);
    crossOut(config.formData.get("client_key"));
    delete card().dataset.answered;
    tell(status === 404 ? "This page is no longer yours: open the project again." : "");
    if (status >= 400) say("Not saved", true);
    else say("Saved");
  });
  for (const name of ["htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(name, (event) => { if (event.detail.target.id === "correction") refuse(NO_LINE + NOT_OFFLINE); });
  }
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id !== "card") return;
    stale = false;
    passed = [];
  });
  window.addEventListener("online", () => { pause = 1000; send(); });
  window.addEventListener("focus", send);
  setInterval(send, ELSEWHERE);

  window.foresight = { newKey, token, tell, refresh, settled: () => !sending && !stale && waiting().length === 0 };
  document.addEventListener("DOMContentLoaded", () => {
    if (waiting().some((answer) => answer.fields.query === card().dataset.query)) card().dataset.answered = "";
    showWaiting();
    send();
  });
})();
