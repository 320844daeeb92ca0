// A number as the answer: typed from anywhere on the page, moved by the slider, the arrows or the buttons beside it, or
// taken from the model. What cannot be taken is said here; the server decides by the same rules.
(() => {
  "use strict";

  const page = document.getElementById("annotate");
  if (!page || !document.getElementById("number-panel")) return;

  const SLACK = 1e-6; // of a step
  const LEAP = 10; // steps, with Shift
  const STEPS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 };

  const field = () => document.getElementById("number-value");
  const slider = () => document.getElementById("number-slider");

  function scale() {
    const { minimum, maximum, step, decimals, unit } = document.getElementById("number-panel").dataset;
    return { minimum: Number(minimum), maximum: Number(maximum), step: Number(step), decimals: Number(decimals), unit };
  }

  // A comma may stand for the point, and the unit behind the number.
  function parse(text) {
    const typed = text.trim(), { unit } = scale();
    const bare = unit && typed.endsWith(unit) ? typed.slice(0, -unit.length).trim() : typed;
    const read = [typed, bare].map((written) => written.replace("\u2212", "-").replace(",", "."));
    const found = read.find((written) => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(written));
    return found === undefined ? NaN : Number(found);
  }

  function asText(value) {
    const text = value.toFixed(scale().decimals);
    return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  }

  const words = (value) => `${asText(value)} ${scale().unit}`.trim();

  // The step next to a number, inside the range.
  function nearest(value) {
    const { minimum, maximum, step } = scale();
    const inside = Math.min(Math.max(value, minimum), maximum);
    return Math.min(minimum + Math.round((inside - minimum) / step) * step, maximum);
  }

  // What is wrong with what was typed; "" when nothing is.
  function complaint() {
    const text = field().value;
    const value = parse(text);
    const { minimum, maximum, step } = scale();
    if (!text.trim()) return "Type a number, or move the slider.";
    if (!Number.isFinite(value)) return `“${text.trim().slice(0, 40)}” is no number.`;
    if (value < minimum - SLACK * step || value > maximum + SLACK * step) {
      return `${text.trim()} is outside the range: it goes from ${words(minimum)} to ${words(maximum)}.`;
    }
    const steps = (value - minimum) / step;
    if (Math.abs(steps - Math.round(steps)) <= SLACK * Math.max(1, Math.abs(steps))) return "";
    const below = minimum + Math.floor(steps) * step;
    return `${text.trim()} lies between two steps: choose ${words(below)} or ${words(Math.min(below + step, maximum))}.`;
  }

  function tell(text) {
    document.getElementById("number-trouble").textContent = text;
    if (text) field().setAttribute("aria-invalid", "true");
    else field().removeAttribute("aria-invalid");
  }

  function showOnSlider(value) {
    slider().value = value;
    slider().classList.remove("unset");
    slider().setAttribute("aria-valuetext", words(value));
  }

  function choose(value) {
    field().value = asText(nearest(value));
    showOnSlider(nearest(value));
    tell("");
  }

  function step(count) {
    const typed = parse(field().value);
    const start = slider().classList.contains("unset") && !Number.isFinite(typed) ? Number(slider().value) : typed;
    choose((Number.isFinite(start) ? start : Number(slider().value)) + count * scale().step);
  }

  function take() {
    const { suggestion } = document.querySelector('[data-action="take"]').dataset;
    if (suggestion) choose(Number(suggestion));
  }

  const isDigit = (key) => /^[0-9.,]$/.test(key) || (scale().minimum < 0 && (key === "-" || key === "\u2212"));

  // Keys of the page that a field of the number has no use for: they stay shortcuts while it is in focus.
  function leaves(event) {
    const { key, target } = event;
    if (target.id === "number-slider") return key.length === 1 || key === "Backspace";
    if (target.id !== "number-value") return false;
    if (key === "Backspace") return target.value === "";
    return key === "ArrowUp" || key === "ArrowDown" || (key.length === 1 && !isDigit(key) && !/[+e]/i.test(key));
  }

  function type(key) {
    field().focus();
    field().value = key;
    field().dispatchEvent(new Event("input", { bubbles: true }));
  }

  // A key pressed on the page; true when it was one of ours. Up and down go on scrolling the page.
  function press(event) {
    const { key, target } = event;
    if (!document.getElementById("number-panel")) return false;
    const zoomed = target.id === "image-box" && target.dataset.zoom !== "0";
    if (key in STEPS && !zoomed && (target.id === "number-value" || key === "ArrowLeft" || key === "ArrowRight")) {
      step(STEPS[key] * (event.shiftKey ? LEAP : 1));
    } else if (isDigit(key)) {
      type(key);
    } else if (key === "Enter" && !target.closest("a, button, summary")) {
      document.querySelector('[data-action="save"]').click();
    } else {
      return false;
    }
    return true;
  }

  // A card of the reserve: nothing chosen yet, and another suggestion.
  function set(form, suggestion) {
    const range = form.querySelector("#number-slider");
    const button = form.querySelector('[data-action="take"]');
    form.querySelector("#number-value").value = "";
    form.querySelector("#number-value").removeAttribute("aria-invalid");
    form.querySelector("#number-trouble").textContent = "";
    range.value = suggestion || range.dataset.middle;
    range.classList.add("unset");
    range.setAttribute("aria-valuetext", "not set yet");
    button.dataset.suggestion = suggestion;
    button.hidden = !suggestion;
    const said = suggestion ? words(Number(suggestion)) : "";
    button.querySelector(".suggestion").textContent = said;
    const told = form.querySelector("#number-range");
    told.textContent = told.textContent.split(" The model says")[0] + (said ? ` The model says ${said}.` : "");
  }

  document.addEventListener("input", (event) => {
    if (event.target.id === "number-slider") choose(Number(event.target.value));
    if (event.target.id !== "number-value") return;
    const value = parse(event.target.value);
    if (Number.isFinite(value)) showOnSlider(nearest(value));
    tell("");
  });
  // A slider that stands where one wants it is chosen by touching it, too.
  document.addEventListener("click", (event) => {
    if (event.target.id === "number-slider") choose(Number(event.target.value));
    const action = event.target.closest("[data-action]")?.dataset.action;
    if (action === "step-down") step(-1);
    if (action === "step-up") step(1);
    if (action === "take") take();
  });
  document.addEventListener("submit", (event) => {
    if (event.target.id !== "answer-form" || event.submitter?.value !== "number") return;
    const wrong = complaint();
    if (!wrong) return;
    event.preventDefault();
    event.stopPropagation();
    tell(""); // the same words once more are said once more
    setTimeout(() => tell(wrong));
    field().focus();
  }, true);

  window.foresightNumber = { leaves, press, set, repeats: (key) => key in STEPS };
})();
