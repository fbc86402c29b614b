"use strict";
// Draws the charts, keeps those of a run that is under way up to date, and lets "/" reach the search box. All else works without scripts.

const HEIGHT = 230;
const HUES = ["--bar", "--bar-2", "--bar-3", "--bar-4", "--bar-5", "--bar-6", "--bar-7", "--bar-8"];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (hue) => css(HUES[((hue % HUES.length) + HUES.length) % HUES.length]);
const number = (value) => (value === null || value === undefined ? "" : Number(value.toPrecision(6)).toString());
const two = (value) => String(value).padStart(2, "0");
const elapsed = (seconds) => {
  if (seconds === null || seconds === undefined) return "";
  const whole = Math.floor(Math.abs(seconds));
  if (whole < 120) return `${number(seconds)} s`;
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return `${seconds < 0 ? "-" : ""}${hours ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}`;
};
const moment = (seconds) => (seconds === null || seconds === undefined ? "" : new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " "));

// Which ticks of a time axis show what: [from so many seconds apart, the format, what is added when the year, month or day is a new one].
const TICKS = [
  [86400 * 28, "{YYYY}-{MM}", null, null, null, null, null, null, 1],
  [86400, "{MM}-{DD}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
  [0.001, ":{ss}.{fff}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD} {HH}:{mm}", null, "\n{HH}:{mm}", null, 1],
];

// Where ticks of elapsed time may stand: so many seconds apart.
const APART = [0.001, 0.01, 0.1, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, ...[1, 2, 5, 10, 20, 50, 100].map((days) => days * 86400)];

// How curves of runs are looked at stands in the page's address, so that a view can be sent to somebody.
const choices = () => new URLSearchParams(location.search);
const isCurve = (figure) => "curve" in figure.dataset;
function address(figure, more = {}) {
  const found = new URL(figure.dataset.chart, location.href);
  const chosen = isCurve(figure) ? { x: choices().get("x"), smooth: choices().get("smooth") } : {};
  for (const [name, value] of Object.entries({ ...chosen, ...more })) if (value !== null) found.searchParams.set(name, value);
  return found;
}

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

function options(figure, data, drawn, width, hooks) {
  const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: "12px system-ui", labelFont: "12px system-ui", labelSize: 18 };
  const along = data.elapsed ? elapsed : number;
  const shown = data.time ? { values: TICKS, space: 64 } : { values: (chart, splits) => splits.map(along), ...(data.elapsed ? { incrs: APART, space: 64 } : {}) };
  const from = (chart, low, high) => [0, high > 0 ? high * 1.06 : 1];
  return {
    width, height: HEIGHT, hooks, cursor: { y: false }, legend: { live: true },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { x: { time: Boolean(data.time) }, y: logarithmic(figure) ? { distr: 3 } : data.zero ? { range: from } : {} },
    axes: [{ ...axis, label: data.x_label, ...shown }, { ...axis, label: data.y_label, size: 62, values: (chart, splits) => splits.map((value) => (value === null ? "" : number(value))) }],
    series: [
      { label: data.x_label, value: (chart, value) => (data.time ? moment(value) : along(value)) },
      ...drawn.map((line) => ({
        label: line.label, ...(line.silent || line.pale ? { class: "silent" } : {}), stroke: line.silent ? "transparent" : `${colour(line.hue)}${line.pale ? "50" : ""}`, width: line.pale ? 1 : 1.5, dash: line.dash, fill: line.fill ? `${colour(line.hue)}2e` : undefined,
        spanGaps: Boolean(line.span),
        paths: line.step ? uPlot.paths.stepped({ align: 1 }) : undefined,
        points: { show: !line.dash && !line.step && !line.silent && !line.pale && line.values.filter((value) => value !== null).length < 60, size: 5 },
        value: (chart, value) => (line.dash ? "" : number(value)),
      })),
    ],
    bands: drawn.flatMap((line, at) => (line.upper ? [{ series: [at + 1, at + 2], fill: `${colour(line.hue)}2e` }] : [])),
  };
}

// What a logarithmic axis can't show is a gap.
const logarithmic = (figure) => isCurve(figure) && choices().get("y") === "log";
function columns(figure, data, drawn) {
  const shown = logarithmic(figure) ? (value) => (value > 0 ? value : null) : (value) => value;
  return [data.x, ...drawn.map((line) => line.values.map(shown))];
}
const isWhole = (chart, data) => chart.scales.x.min <= data.x[0] && chart.scales.x.max >= data.x[data.x.length - 1];

// Where a curve has more points than are drawn, a chosen range is asked for anew, so that it shows what the whole had to leave out.
function closer(figure, held) {
  let asked = 0;
  const show = async (chart) => {
    const whole = held.data;
    const { min, max } = chart.scales.x;
    const turn = ++asked;
    let found = whole;
    if (!isWhole(chart, whole)) {
      const steps = whole.steps.length ? whole.steps.filter((step, at) => whole.x[at] >= min && whole.x[at] <= max) : [Math.floor(min), Math.ceil(max)];
      if (!steps.length) return;
      const [first, last] = [steps.reduce((one, other) => Math.min(one, other)), steps.reduce((one, other) => Math.max(one, other))];
      const response = await fetch(address(figure, { first, last }));
      if (!response.ok) return;
      found = await response.json();
    }
    if (turn !== asked || !found.x.length) return;
    chart.setData(columns(figure, found, lines(found)), false);
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
  const traced = location.hash.match(/^#\/experiments\/(\d+)\/traces(?:.*[?&]selectedEvaluationId=([\w-]+))?/);
  const [, name, , version] = location.hash.match(/^#\/models\/([^/]+)(\/versions\/(\d+))?/) || [];
  const [, prompt] = location.hash.match(/^#\/prompts\/([^/?]+)/) || [];
  if (traced) location.replace(traced[2] ? `/traces/${traced[2]}` : `/traces?experiment_id=${traced[1]}`);
  else if (prompt) location.replace(`/models/${prompt}`);
  else if (run) location.replace(`/runs/${run}`);
  else if (experiment) location.replace(`/runs?experiment_id=${experiment}`);
  else if (name) location.replace(`/models/${name}${version ? `/${version}` : ""}`);
}
if ((location.pathname === "/" || location.pathname === "/runs") && location.hash) moved();

// The charts that were seen, each with the function that draws it anew.
const drawings = new Map();

async function draw(figure) {
  const place = figure.querySelector(".chart");
  const held = { data: null };
  let chart = null;
  const again = () => {
    const drawn = lines(held.data);
    drawn.push(...edges(drawn));
    if (chart) chart.destroy();
    place.textContent = "";
    chart = new uPlot(options(figure, held.data, drawn, place.clientWidth, figure.dataset.closer ? closer(figure, held) : {}), columns(figure, held.data, drawn), place);
  };
  const load = async () => {
    const response = await fetch(address(figure));
    const data = response.ok ? await response.json() : null;
    if (data && data.x.length) {
      held.data = data;
      again();
    } else if (!chart) {
      place.textContent = data ? "There is no point yet." : `The points could not be read (${response.status}).`;
    }
  };
  drawings.set(figure, { load, isLookedInto: () => chart !== null && !isWhole(chart, held.data) });
  await load();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart && again());
  addEventListener("resize", () => chart && chart.setSize({ width: place.clientWidth, height: HEIGHT }));
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "200px" });
const watch = (within) => within.querySelectorAll("figure[data-chart]").forEach((figure) => seen.observe(figure));
watch(document);

document.querySelectorAll("form.view").forEach((form) => {
  form.hidden = false;
  for (const select of form.querySelectorAll("select")) select.value = choices().get(select.name) || "";
  form.addEventListener("change", () => {
    const chosen = choices();
    for (const select of form.querySelectorAll("select")) select.value ? chosen.set(select.name, select.value) : chosen.delete(select.name);
    history.replaceState(null, "", `${location.pathname}${chosen.size ? `?${chosen}` : ""}${location.hash}`);
    drawings.forEach((drawing) => drawing.load());
  });
});

// A run that is under way: every few seconds its parts that change are read anew, and the curves in sight, but for those that somebody looks into.
const EVERY = 5000;
async function refresh() {
  const live = document.querySelector("[data-live]");
  if (!live) return;
  if (document.visibilityState === "visible") {
    const response = await fetch(location.href).catch(() => null); // while the server is away it is asked again
    if (response && response.ok && !response.redirected) renew(new DOMParser().parseFromString(await response.text(), "text/html"));
  }
  setTimeout(refresh, EVERY);
}
const isSeen = (figure) => figure.getBoundingClientRect().bottom > 0 && figure.getBoundingClientRect().top < innerHeight;
function renew(fresh) {
  for (const part of document.querySelectorAll("[data-part]")) {
    const other = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
    if (other) part.innerHTML = other.innerHTML;
  }
  const held = document.querySelector("#curves"), others = fresh.querySelector("#curves");
  const known = new Map([...held.querySelectorAll("figure[data-curve]")].map((figure) => [figure.dataset.chart, figure]));
  const found = [...others.querySelectorAll("figure[data-curve]")];
  if (found.every((other) => known.has(other.dataset.chart))) {
    for (const other of found) {
      const figure = known.get(other.dataset.chart);
      figure.querySelector("figcaption").innerHTML = other.querySelector("figcaption").innerHTML;
      Object.assign(figure.dataset, other.dataset);
    }
    drawings.forEach((drawing, figure) => isSeen(figure) && !drawing.isLookedInto() && drawing.load());
  } else {
    held.innerHTML = others.innerHTML;
    drawings.clear();
    watch(held);
  }
  const live = document.querySelector("[data-live]");
  if (live && !fresh.querySelector("[data-live]")) delete live.dataset.live;
}
if (document.querySelector("[data-live]")) setTimeout(refresh, EVERY);

addEventListener("keydown", (event) => {
  const busy = event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey;
  if (event.key === "/" && !busy) {
    event.preventDefault();
    document.querySelector("input[type=search]").focus();
  }
});
