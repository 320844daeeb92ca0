// Sends an upload with a progress bar. Without this script the form works by itself.
(() => {
  "use strict";

  const form = document.querySelector("[data-upload]");
  if (!form) return;

  const input = form.querySelector("input[type=file]");
  const button = form.querySelector("button[type=submit]");
  const progress = form.querySelector("[data-upload-progress]");
  const bar = progress.querySelector("progress");
  const words = form.querySelector("[data-upload-words]");
  const error = form.querySelector("[data-upload-error]");
  const limit = Number(form.dataset.limit);
  const maxFiles = Number(form.dataset.maxFiles);

  const size = (bytes) => (bytes < 1024 ** 3 ? `${(bytes / 1024 ** 2).toFixed(1)} MB` : `${(bytes / 1024 ** 3).toFixed(2)} GB`);

  function fail(message) {
    error.textContent = message;
    error.hidden = false;
    progress.hidden = true;
    button.disabled = false;
  }

  function explain(request) {
    if (request.status === 401 || request.status === 403) return "You are not signed in any more, or may not do this. Reload the page.";
    const page = new DOMParser().parseFromString(request.responseText || "", "text/html");
    const found = page.querySelector("[data-upload-error]:not([hidden])") || page.querySelector("[data-upload] .error[role=alert]");
    return found ? found.textContent.trim() : `The server could not take the files (${request.status}). Please try again.`;
  }

  function check(files) {
    const total = files.reduce((sum, file) => sum + file.size, 0);
    if (files.length === 0) return "Choose a zip archive or some pictures first.";
    if (files.length > maxFiles) return `At most ${maxFiles} files at once: put them in one zip.`;
    if (total > limit) return `These files have ${size(total)} together; ${size(limit)} can be sent at once.`;
    return "";
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const wrong = check(Array.from(input.files));
    if (wrong) return fail(wrong);
    error.hidden = true;
    progress.hidden = false;
    button.disabled = true;
    bar.value = 0;

    const request = new XMLHttpRequest();
    request.upload.addEventListener("progress", (step) => {
      bar.value = step.total ? step.loaded / step.total : 0;
      words.textContent = `${size(step.loaded)} of ${size(step.total)} sent`;
    });
    request.upload.addEventListener("load", () => {
      words.textContent = "Sent. The server takes the files.";
    });
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) window.location.assign(request.responseURL);
      else fail(explain(request));
    });
    request.addEventListener("error", () => fail("The connection broke before all was sent. Please try again."));
    request.open("POST", form.action);
    request.setRequestHeader("X-Requested-With", "fetch");
    request.send(new FormData(form));
  });
})();
