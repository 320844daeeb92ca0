// The charts of the progress page, in the page's own colours; the tables beside them hold the same numbers.
(() => {
  "use strict";

  const page = document.getElementById("progress-page");
  if (!page || !window.Chart) return;

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let charts = [];
  const named = (words, unit) => (unit ? `${words}, ${unit}` : words);

  function points(curve, value) {
    const of = typeof value === "function" ? value : (point) => point[value];
    return curve.map((point) => ({ x: point.labels, y: 100 * of(point) }));
  }

  function axes(x, y, options, more_of_x) {
    const axis = (text, more) => ({
      title: { display: true, text, color: colour("--muted") },
      ticks: { color: colour("--muted"), precision: 0, maxRotation: 0, autoSkipPadding: 12 },
      grid: { color: colour("--line") },
      ...more,
    });
    return { x: axis(x, more_of_x), y: axis(y, { beginAtZero: true, ...options }) };
  }

  // A line with its interval as a band: `points` have labels, low, value and high.
  function band(points, words, y, options) {
    const line = (name) => points.map((point) => ({ x: point.labels, y: point[name] }));
    return {
      type: "line",
      data: {
        datasets: [
          { label: "upper end of the interval", data: line("high"), borderColor: "transparent", pointRadius: 0, fill: "+1", backgroundColor: colour("--accent-soft") },
          { label: "lower end of the interval", data: line("low"), borderColor: "transparent", pointRadius: 0 },
          { label: words, data: line("value"), borderColor: colour("--accent"), backgroundColor: colour("--accent"), pointRadius: 2, order: -1 },
        ],
      },
      options: { scales: axes("labels", y, options, { type: "linear" }) },
    };
  }

  const kinds = {
    curve: (data) => band(
      data.curve.map(({ labels, low, share, high }) => ({ labels, low: 100 * low, value: 100 * share, high: 100 * high })),
      "audit accuracy", "accuracy, %", { max: 100 },
    ),
    error_curve: (data) => band(
      data.error_curve.map((point) => ({ ...point, value: point.error })),
      "audit error", named("error", data.unit), { ticks: { color: colour("--muted") } },
    ),
    // Each audited image a point; on the line, the prediction was right.
    pairs: (data) => {
      const values = data.pairs.flatMap((pair) => [pair.given, pair.predicted]);
      const ends = [Math.min(...values), Math.max(...values)];
      const scales = axes(named("given", data.unit), named("predicted", data.unit), { beginAtZero: false });
      scales.x.type = "linear";
      for (const axis of [scales.x, scales.y]) axis.ticks = { color: colour("--muted") };
      return {
        type: "scatter",
        data: {
          datasets: [
            { label: "audited images", data: data.pairs.map((pair) => ({ x: pair.given, y: pair.predicted })), backgroundColor: colour("--accent"), pointRadius: 3 },
            { label: "right", type: "line", data: ends.map((value) => ({ x: value, y: value })), borderColor: colour("--muted"), borderDash: [4, 4], borderWidth: 1, pointRadius: 0 },
          ],
        },
        options: { scales },
      };
    },
    histogram: (data) => ({
      type: "bar",
      data: {
        labels: data.histogram.map((row) => row.words),
        datasets: [{ label: "labels", data: data.histogram.map((row) => row.labels), backgroundColor: colour("--accent"), categoryPercentage: 1, barPercentage: 0.9 }],
      },
      options: { scales: axes(named(data.name, data.unit), "labels") },
    }),
    outlook: (data) => ({
      type: "line",
      data: {
        datasets: [
          { label: "upper end of the interval", data: points(data.outlook.curve, "high"), borderColor: "transparent", pointRadius: 0, fill: "+1", backgroundColor: colour("--accent-soft") },
          { label: "lower end of the interval", data: points(data.outlook.curve, "low"), borderColor: "transparent", pointRadius: 0 },
          { label: "target", data: points(data.outlook.curve, () => data.outlook.target), borderColor: colour("--muted"), borderDash: [4, 4], borderWidth: 1, pointRadius: 0, order: -1 },
          { label: "expected accuracy", data: points(data.outlook.curve, "share"), borderColor: colour("--accent"), backgroundColor: colour("--accent"), pointRadius: 2, order: -1 },
        ],
      },
      options: { scales: axes("labels", "accuracy, %", { max: 100 }, { type: "linear" }) },
    }),
    over_time: (data) => ({
      type: "line",
      data: {
        labels: data.over_time.map((point) => point.when),
        datasets: [{ label: "labels in all", data: data.over_time.map((point) => point.total), borderColor: colour("--accent"), backgroundColor: colour("--accent"), pointRadius: 2 }],
      },
      options: { scales: axes("time, UTC", "labels") },
    }),
    classes: (data) => ({
      type: "bar",
      data: {
        labels: data.classes.map((row) => row.name),
        datasets: [{ label: "labels", data: data.classes.map((row) => row.labels), backgroundColor: data.classes.map((row) => row.colour) }],
      },
      options: { scales: axes("class", "labels") },
    }),
  };

  function draw(summary) {
    const data = { ...summary, ...summary.numbers };
    for (const chart of charts) chart.destroy();
    charts = [];
    for (const place of document.querySelectorAll("[data-chart]")) {
      const name = place.dataset.chart;
      const rows = name === "outlook" ? data.outlook && data.outlook.curve : data[name];
      if (!rows || rows.length === 0) continue;
      place.hidden = false;
      const chart = kinds[name](data);
      chart.options = { ...chart.options, responsive: true, maintainAspectRatio: false, animation: calm.matches ? false : { duration: 300 }, plugins: { legend: { display: false } } };
      charts.push(new window.Chart(place.querySelector("canvas"), chart));
    }
  }

  fetch(page.dataset.source, { credentials: "same-origin" })
    .then((reply) => reply.json())
    .then((data) => {
      draw(data);
      dark.addEventListener("change", () => draw(data));
    });
})();
