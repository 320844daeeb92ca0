// Answers that could not be sent wait in this browser with their client key, and go later: in order, never lost, never
// twice (the server knows the key). Kept apart by user.
(() => {
  "use strict";

  const page = document.getElementById("annotate");
  if (!page) return;

  const store = `foresight-answers-${page.dataset.user}`;
  const trouble = document.getElementById("trouble");
  let sending = false;
  let pause = 1000;
  let timer = 0;

  const read = () => JSON.parse(localStorage.getItem(store) || "[]");
  const write = (answers) => localStorage.setItem(store, JSON.stringify(answers));
  const token = () => document.querySelector("input[name=csrfmiddlewaretoken]").value;

  function say(text, waiting) {
    const state = document.getElementById("save-state");
    if (!state) return;
    state.textContent = text;
    state.classList.toggle("waiting", Boolean(waiting));
  }

  function tell(text, link) {
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
    const count = read().length;
    if (count === 0) return;
    say(`Offline: ${count} waiting`, true);
    document.getElementById("card").setAttribute("aria-busy", "true");
  }

  // A version 4 UUID; crypto.randomUUID is missing where the page came over plain HTTP.
  function newKey() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
  }

  // Keep what a request wanted to say; the same key is kept once.
  function keep(path, parameters) {
    const fields = Object.fromEntries(parameters.entries());
    delete fields.csrfmiddlewaretoken;
    const answers = read();
    if (!answers.some((answer) => answer.fields.client_key === fields.client_key)) answers.push({ path, fields });
    write(answers);
    showWaiting();
    later();
  }

  function later() {
    clearTimeout(timer);
    timer = setTimeout(send, pause);
    pause = Math.min(pause * 2, 15000);
  }

  // Send what waits, one after the other; whatever the server decided on is done with.
  async function send() {
    if (sending || read().length === 0) return;
    sending = true;
    try {
      while (read().length > 0) {
        const [answer, ...rest] = read();
        const body = new URLSearchParams({ ...answer.fields, csrfmiddlewaretoken: token() });
        const reply = await fetch(answer.path, {
          method: "POST",
          body,
          headers: { "HX-Request": "true", "X-CSRFToken": token() },
          credentials: "same-origin",
          redirect: "error",
        });
        if (reply.status === 401) return tell("Your sign-in has expired. Your answer is kept in this browser.", true);
        if (reply.status === 403) return tell("This page was open too long: reload it. Your answer is kept in this browser.");
        if (reply.status >= 500) return later();
        write(rest);
      }
      pause = 1000;
      tell("");
      say("Saved");
      window.htmx.ajax("GET", page.dataset.page, { target: "#card", swap: "outerHTML" });
    } catch {
      later();
    } finally {
      sending = false;
    }
  }

  // Called for every request of the page that did not get through.
  function failed(detail) {
    const config = detail.requestConfig;
    if (!config || config.verb !== "post") return;
    const status = detail.xhr ? detail.xhr.status : 0;
    if (status === 409 || status === 422) return;
    if (status === 401) tell("Your sign-in has expired. Your answer is kept in this browser.", true);
    else if (status === 403) tell("This page was open too long: reload it. Your answer is kept in this browser.");
    else if (status === 404) return tell("This page is no longer yours: open the project again.");
    else tell("");
    keep(config.path, config.formData || new URLSearchParams(config.parameters));
  }

  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.verb === "post" && read().length > 0) {
      event.preventDefault(); // the order of the answers is kept: first what waits
      send();
    }
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.requestConfig.verb === "post") say("Saving…");
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const { successful, requestConfig, xhr } = event.detail;
    if (requestConfig.verb !== "post") return;
    if (successful) { tell(""); say("Saved"); }
    else if (xhr.status === 409 || xhr.status === 422) say("Not saved", true);
  });
  document.addEventListener("htmx:responseError", (event) => failed(event.detail));
  document.addEventListener("htmx:sendError", (event) => failed(event.detail));
  document.addEventListener("htmx:timeout", (event) => failed(event.detail));
  window.addEventListener("online", () => { pause = 1000; send(); });

  window.foresight = { newKey, token, waiting: () => read().length };
  showWaiting();
  send();
})();
