"use strict";
// Draws the charts and lets "/" reach the search box. Everything else on the pages works without scripts.

const HEIGHT = 230;
const HUES = ["--bar", "--bar-2", "--bar-3", "--bar-4", "--bar-5", "--bar-6", "--bar-7", "--bar-8"];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (hue) => css(HUES[((hue % HUES.length) + HUES.length) % HUES.length]);
const number = (value) => (value === null || value === undefined ? "" : Number(value.toPrecision(6)).toString());
const moment = (seconds) => (seconds === null || seconds === undefined ? "" : new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " "));

// Which ticks of a time axis show what: [from so many seconds apart, the format, what is added when the year, month or day is a new one].
const TICKS = [
  [86400 * 28, "{YYYY}-{MM}", null, null, null, null, null, null, 1],
  [86400, "{MM}-{DD}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
  [0.001, ":{ss}.{fff}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD} {HH}:{mm}", null, "\n{HH}:{mm}", null, 1],
];

// A chart has `series`, and `limits` as dashed lines in the colour of what they limit.
function lines(data) {
  const limits = (data.limits || []).map((limit) => ({ ...limit, values: data.x.map(() => limit.value), dash: [5, 4] }));
  return [...data.series, ...limits];
}

// A series with an error gets two silent lines, so far above and below, and the band between them.
function edges(drawn) {
  const beside = (line, sign) => line.values.map((value, at) => (value === null || line.error[at] === null ? null : value + sign * line.error[at]));
  return drawn.filter((line) => line.error && line.error.length).flatMap((line) => [
    { label: "", hue: line.hue, silent: true, upper: true, values: beside(line, 1) },
    { label: "", hue: line.hue, silent: true, values: beside(line, -1) },
  ]);
}

function options(data, drawn, width, hooks) {
  const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: "12px system-ui", labelFont: "12px system-ui", labelSize: 18 };
  const shown = data.time ? { values: TICKS, space: 64 } : { values: (chart, splits) => splits.map(number) };
  const from = (chart, low, high) => [0, high > 0 ? high * 1.06 : 1];
  return {
    width, height: HEIGHT, hooks, cursor: { y: false }, legend: { live: true },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { x: { time: Boolean(data.time) }, y: data.zero ? { range: from } : {} },
    axes: [{ ...axis, label: data.x_label, ...shown }, { ...axis, label: data.y_label, size: 62, values: (chart, splits) => splits.map(number) }],
    series: [
      { label: data.x_label, value: (chart, value) => (data.time ? moment(value) : number(value)) },
      ...drawn.map((line) => ({
        label: line.label, ...(line.silent ? { class: "silent" } : {}), stroke: line.silent ? "transparent" : colour(line.hue), width: 1.5, dash: line.dash, fill: line.fill ? `${colour(line.hue)}2e` : undefined,
        spanGaps: Boolean(line.span),
        paths: line.step ? uPlot.paths.stepped({ align: 1 }) : undefined,
        points: { show: !line.dash && !line.step && !line.silent && line.values.filter((value) => value !== null).length < 60, size: 5 },
        value: (chart, value) => (line.dash ? "" : number(value)),
      })),
    ],
    bands: drawn.flatMap((line, at) => (line.upper ? [{ series: [at + 1, at + 2], fill: `${colour(line.hue)}2e` }] : [])),
  };
}

// Where a curve has more points than are drawn, a chosen range is asked for anew, so that it shows what the whole had to leave out.
function closer(figure, whole) {
  let asked = 0;
  const show = async (chart) => {
    const { min, max } = chart.scales.x;
    const turn = ++asked;
    let found = whole;
    if (min > whole.x[0] || max < whole.x[whole.x.length - 1]) {
      const response = await fetch(`${figure.dataset.chart}&first=${Math.floor(min)}&last=${Math.ceil(max)}`);
      if (!response.ok) return;
      found = await response.json();
    }
    if (turn !== asked || !found.x.length) return;
    chart.setData([found.x, ...lines(found).map((line) => line.values)], false);
    chart.redraw();
  };
  let waiting = null;
  return {
    setScale: [(chart, key) => {
      if (key !== "x") return;
      clearTimeout(waiting);
      waiting = setTimeout(() => show(chart), 120);
    }],
  };
}

// MLflow's clients print addresses of MLflow's own pages; they lead to ours.
function moved() {
  const [, experiment, , run] = location.hash.match(/^#\/experiments\/(\d+)(\/runs\/([0-9a-f]+))?/) || [];
  const [, name, , version] = location.hash.match(/^#\/models\/([^/]+)(\/versions\/(\d+))?/) || [];
  if (run) location.replace(`/runs/${run}`);
  else if (experiment) location.replace(`/runs?experiment_id=${experiment}`);
  else if (name) location.replace(`/models/${name}${version ? `/${version}` : ""}`);
}
if ((location.pathname === "/" || location.pathname === "/runs") && location.hash) moved();

async function draw(figure) {
  const place = figure.querySelector(".chart");
  const response = await fetch(figure.dataset.chart);
  if (!response.ok) {
    place.textContent = `The points could not be read (${response.status}).`;
    return;
  }
  const data = await response.json();
  if (!data.x.length) {
    place.textContent = "There is no point yet.";
    return;
  }
  const drawn = lines(data);
  drawn.push(...edges(drawn));
  let chart = null;
  const columns = (found, shown) => [found.x, ...shown.map((line) => line.values)];
  const again = () => {
    if (chart) chart.destroy();
    chart = new uPlot(options(data, drawn, place.clientWidth, figure.dataset.closer ? closer(figure, data) : {}), columns(data, drawn), place);
  };
  again();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("resize", () => chart.setSize({ width: place.clientWidth, height: HEIGHT }));
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
