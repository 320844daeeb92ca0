// Every answer is written down in this browser before it is sent, and crossed out when the server has decided on it:
// what could not be sent goes later, in order, under its client key (the server knows it): never lost, never twice.
// One entry an answer, so that two tabs cannot overwrite each other's; entries are kept apart by user.
(() => {
  "use strict";

  const page = document.getElementById("annotate");
  if (!page) return;

  const store = `foresight-answer-${page.dataset.user}-`;
  const trouble = document.getElementById("trouble");
  const PATIENCE = 15000; // for one request
  const ELSEWHERE = 20000; // so long may another tab's answer be under way before this tab sends it
  const UNDECIDED = [0, 401, 403, 408, 425, 429];
  const EXPIRED = "Your sign-in has expired. Your answer is kept in this browser.";
  const TOO_OLD = "This page was open too long: reload it. Your answer is kept in this browser.";
  const NO_LINE = "You are offline, or the server does not answer. Your answer is kept in this browser: "
    + "it will be sent, and the next image shown, as soon as the line is back.";
  let sending = false;
  let stale = false; // the card on screen has been answered, the next one is still to be asked for
  let pause = 1000;
  let timer = 0;

  const decided = (status) => status < 500 && !UNDECIDED.includes(status);

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

  function showWaiting() {
    const count = waiting().length;
    if (count === 0) return;
    say(`Offline: ${count} waiting`, true);
    document.getElementById("card").setAttribute("aria-busy", "true");
  }

  function keep(config) {
    const fields = Object.fromEntries(config.formData.entries());
    delete fields.csrfmiddlewaretoken;
    const at = Date.now();
    localStorage.setItem(`${store}${at}-${fields.client_key}`, JSON.stringify({ path: config.path, fields, at }));
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
    tell(NO_LINE);
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

  // Send what waits, one after the other; then ask for the card of now. Returns the status that stopped it, if any.
  async function flush() {
    const refused = [];
    for (let [answer] = waiting(); answer; [answer] = waiting()) {
      const reply = await post(answer);
      if (!decided(reply.status)) return reply.status;
      localStorage.removeItem(answer.name);
      stale = true;
      if (reply.status >= 400) refused.push(reason(await reply.text())?.textContent || `The server said ${reply.status}.`);
    }
    if (stale) await refresh();
    if (stale) return 0;
    pause = 1000;
    say("Saved");
    tell(refused.length ? `An answer that waited was not taken. ${refused.join(" ")}` : "");
    return null;
  }

  async function send() {
    if (sending || (!stale && waiting().length === 0)) return;
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
    if (!stale && waiting().length === 0) return;
    event.preventDefault(); // the order of the answers is kept: first what waits
    send();
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    const config = event.detail.requestConfig;
    if (config.verb !== "post") return;
    keep(config);
    say("Saving…");
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const { requestConfig: config, xhr } = event.detail;
    if (config.verb !== "post") return;
    if (!decided(xhr.status)) return wait(xhr.status);
    crossOut(config.formData.get("client_key"));
    tell(xhr.status === 404 ? "This page is no longer yours: open the project again." : "");
    if (xhr.status >= 400) say("Not saved", true);
    else say("Saved");
  });
  document.addEventListener("htmx:afterSwap", (event) => { if (event.detail.target.id === "card") stale = false; });
  window.addEventListener("online", () => { pause = 1000; send(); });
  window.addEventListener("focus", send);
  setInterval(send, ELSEWHERE);

  window.foresight = { newKey, token, tell, refresh, settled: () => !sending && !stale && waiting().length === 0 };
  document.addEventListener("DOMContentLoaded", () => { showWaiting(); send(); });
})();
