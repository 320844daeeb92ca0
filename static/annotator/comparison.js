// The learning curves of a comparison, a line a strategy with its interval; the table below holds the same numbers.
(() => {
  "use strict";

  const place = document.querySelector("[data-comparison]");
  if (!place || !window.Chart) return;

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // After Okabe and Ito (2008), for colour-blind eyes; dashes and marks tell the lines apart without colour.
  const light = ["#0072b2", "#b34700", "#007a58", "#a8487f", "#8a6100", "#2a7fae", "#444444"];
  const bright = ["#5cb8f0", "#ff9a5c", "#4fd1a5", "#eda3cd", "#f0c060", "#a5dcff", "#d0d0d0"];
  const dashes = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
  const marks = ["circle", "rect", "triangle", "rectRot", "crossRot", "star"];
  const narrow = window.matchMedia("(max-width: 30rem)");
  let chart = null;

  function band(strategy, hue, number) {
    const ends = (end) => strategy.curve.filter((point) => point.interval).map((point) => ({ x: point.labels, y: 100 * point.interval[end] }));
    const side = { borderColor: "transparent", pointRadius: 0, pointHitRadius: 0, isBand: true };
    return [
      { ...side, label: `${strategy.title}: upper end`, data: ends(1), fill: "+1", backgroundColor: `${hue}22`, order: 100 + number },
      { ...side, label: `${strategy.title}: lower end`, data: ends(0), order: 100 + number },
    ];
  }

  function line(strategy, hue, number) {
    return {
      label: strategy.title,
      data: strategy.curve.map((point) => ({ x: point.labels, y: 100 * point.share })),
      borderColor: hue,
      backgroundColor: hue,
      borderDash: dashes[Math.floor(number / 2) % dashes.length],
      pointStyle: marks[number % marks.length],
      pointRadius: 4,
      order: number,
    };
  }

  function axis(text, more) {
    const quiet = { color: colour("--muted"), maxRotation: 0, autoSkipPadding: 12 };
    return { title: { display: true, text, color: colour("--muted") }, ticks: quiet, grid: { color: colour("--line") }, ...more };
  }

  function draw(strategies) {
    if (chart) chart.destroy();
    const hues = dark.matches ? bright : light;
    const sets = strategies.flatMap((strategy, number) => {
      const hue = hues[number % hues.length];
      return [...band(strategy, hue, number), line(strategy, hue, number)];
    });
    place.hidden = false;
    chart = new window.Chart(place.querySelector("canvas"), {
      type: "line",
      data: { datasets: sets },
      options: {
        responsive: true,
        maintainAspectRatio: false,
        animation: calm.matches ? false : { duration: 300 },
        scales: { x: axis("labels", { type: "linear" }), y: axis("accuracy on held-out images, %", {}) },
        plugins: {
          legend: {
            position: narrow.matches ? "bottom" : "right",
            labels: { color: colour("--text"), usePointStyle: true, filter: (item, data) => !data.datasets[item.datasetIndex].isBand },
          },
          tooltip: { filter: (item) => !item.dataset.isBand, callbacks: { label: (item) => `${item.dataset.label}: ${item.parsed.y.toFixed(1)} %` } },
        },
      },
    });
  }

  fetch(place.dataset.comparison, { credentials: "same-origin" })
    .then((reply) => reply.json())
    .then((data) => {
      if (data.strategies.length === 0) return;
      draw(data.strategies);
      dark.addEventListener("change", () => draw(data.strategies));
      narrow.addEventListener("change", () => draw(data.strategies));
    });
})();
