"use strict";
// Draws the metric charts and lets "/" reach the search box. Everything else on the pages works without scripts.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(figure, data, width) {
  const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: "12px system-ui", labelFont: "12px system-ui", labelSize: 18 };
  const number = (value) => (value === null || value === undefined ? "" : Number(value.toPrecision(6)).toString());
  return {
    width, height: 230, cursor: { y: false }, legend: { live: true },
    scales: { x: { time: false } },
    axes: [{ ...axis, label: data.x_label }, { ...axis, label: data.y_label, size: 62, values: (chart, splits) => splits.map(number) }],
    series: [{ label: data.x_label }, { label: data.y_label, stroke: css("--bar"), width: 1.5, points: { show: data.x.length < 60 }, value: (chart, value) => number(value) }],
  };
}

async function draw(figure) {
  const place = figure.querySelector(".chart");
  const response = await fetch(figure.dataset.chart);
  if (!response.ok) {
    place.textContent = `The points could not be read (${response.status}).`;
    return;
  }
  const data = await response.json();
  let chart = null;
  const again = () => {
    if (chart) chart.destroy();
    chart = new uPlot(options(figure, data, place.clientWidth), [data.x, data.y], place);
  };
  again();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("resize", () => chart.setSize({ width: place.clientWidth, height: 230 }));
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "200px" });
document.querySelectorAll("figure[data-chart]").forEach((figure) => seen.observe(figure));

addEventListener("keydown", (event) => {
  const busy = event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey;
  if (event.key === "/" && !busy) {
    event.preventDefault();
    document.querySelector("input[type=search]").focus();
  }
});
