"use strict";
(() => {
  const data = JSON.parse(document.getElementById("front-data").textContent);
  const plot = document.getElementById("front-plot");
  if (!plot || !data.trials.length) return;

  const panel = document.getElementById("panel");
  const control = (id) => document.getElementById(id);
  const byNumber = new Map(data.trials.map((trial) => [trial.number, trial]));
  const figureIndex = new Map(data.figures.map((figure, index) => [figure.name, index]));
  // lines of a hover label: up to so many layers each has its own, beyond that neighbours that are alike share one
  const LAYERS_APART = 14, MOST_LINES = 16;
  const KINDS = {
    infeasible: { name: "beyond a bound", marker: { color: "#8c8c8c", symbol: "x-thin-open", size: 7 } },
    dominated: { name: "dominated", marker: { color: "#b9c0c8", size: 7 } },
    uniform: { name: "uniform", marker: { color: "#d9822b", symbol: "square-open", size: 10, line: { width: 1.6 } } },
    front: { name: "front", marker: { color: "#1f5fa8", size: 9 } },
    chosen: { name: "chosen", marker: { color: "#c0223b", symbol: "star", size: 17 } },
  };
  let selected = null;

  const element = (tag, text = "", parent = null) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };
  const number = (value) => Number(value.toPrecision(6)).toString();
  const withUnit = (figure, value) => `${figure.name} ${number(value)}${figure.unit === "share" ? "" : ` ${figure.unit}`}`;
  // what Plotly shows is read as its own markup
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const value = (trial, name) => trial.figures[figureIndex.get(name)];

  function layerText(trial, index) {
    const steps = data.texts[trial.steps[index]];
    return `${data.short[trial.weights[index]]} / ${data.short[trial.activations[index]]}${steps ? ` ${steps}` : ""}`;
  }

  function assignmentLines(trial) {
    const lines = [];
    for (let first = 0; first < data.layers.length; ) {
      let last = first;
      const text = layerText(trial, first);
      if (data.layers.length > LAYERS_APART) {
        while (last + 1 < data.layers.length && layerText(trial, last + 1) === text) last += 1;
      }
      const names = last === first ? data.layers[first] : `${data.layers[first]} … ${data.layers[last]} (${last - first + 1})`;
      lines.push(`${names}: ${text}`);
      first = last + 1;
    }
    if (lines.length <= MOST_LINES) return lines;
    return [...lines.slice(0, MOST_LINES - 1), `and ${lines.length - MOST_LINES + 1} lines more: click`];
  }

  function hoverText(trial) {
    const names = [...new Set([...data.objectives, "accuracy"])].filter((name) => figureIndex.has(name));
    const figures = names.map((name) => withUnit(data.figures[figureIndex.get(name)], value(trial, name))).join(", ");
    const network = trial.networkSteps ? [`network: ${trial.networkSteps}`] : [];
    const lines = [figures, ...network, ...assignmentLines(trial)].map(plain);
    return [`<b>trial ${trial.number}</b> (${plain(trial.origin)})`, ...lines].join("<br>");
  }

  function traceOf(kind, trials, x, y) {
    return {
      type: "scatter", mode: "markers", name: `${KINDS[kind].name} (${trials.length})`, marker: KINDS[kind].marker,
      x: trials.map((trial) => value(trial, x)), y: trials.map((trial) => value(trial, y)),
      customdata: trials.map((trial) => trial.number), hovertext: trials.map(hoverText), hoverinfo: "text",
    };
  }

  // a line or marks at points that another trace already has: they are not pointed at
  function unpointed(trials, x, y, style) {
    return {
      type: "scatter", hoverinfo: "skip", showlegend: false, ...style,
      x: trials.map((trial) => value(trial, x)), y: trials.map((trial) => value(trial, y)),
    };
  }

  function traces(x, y) {
    const made = [];
    const onFront = data.trials.filter((trial) => trial.file);
    const inThisPlane = new Set(data.objectives).size === 2 && data.objectives.includes(x) && data.objectives.includes(y);
    if (inThisPlane && x !== y) {
      const sorted = [...onFront].sort((a, b) => value(a, x) - value(b, x));
      made.push(unpointed(sorted, x, y, { mode: "lines", line: { color: "#1f5fa8", width: 1 }, opacity: 0.6 }));
    }
    for (const kind of Object.keys(KINDS)) {
      const own = data.trials.filter((trial) => trial.kind === kind);
      if (own.length) made.push(traceOf(kind, own, x, y));
    }
    const square = { color: "#d9822b", symbol: "square-open", size: 14, line: { width: 1.6 } };
    made.push(unpointed(onFront.filter((trial) => trial.uniform), x, y, { mode: "markers", marker: square }));
    const circle = { color: "#1d2733", symbol: "circle-open", size: 22, line: { width: 2 } };
    const picked = selected === null ? [] : [byNumber.get(selected)];
    made.push(unpointed(picked, x, y, { mode: "markers", marker: circle }));
    return made;
  }

  function evenStep(least) {
    const power = 10 ** Math.floor(Math.log10(least || 1));
    return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= least) ?? 10 * power;
  }

  function axis(name, logarithmic) {
    const figure = data.figures[figureIndex.get(name)];
    const better = figure.higherIsBetter ? "higher is better" : "lower is better";
    const values = data.trials.map((trial) => value(trial, name));
    const low = Math.min(...values), high = Math.max(...values);
    const made = {
      title: { text: plain(`${figure.header}, ${better}`) }, type: logarithmic ? "log" : "linear", gridcolor: "#e4e8ec",
      exponentformat: high >= 1000 ? "SI" : "power", zeroline: false,
    };
    if (!logarithmic) return made;
    // over several decades only powers are named; over few, numbers in between too
    if (high / low > 300) return { ...made, dtick: 1 };
    const named = { ...made, tickformat: high >= 1000 ? "~s" : "~g" };
    if (high / low > 3) return { ...named, dtick: high / low > 8 ? "D2" : "D1" };
    return { ...named, dtick: `L${evenStep((high - low) / 5)}` };
  }

  function floatLine(axisName, logarithmic) {
    const at = data.floatAccuracy, across = axisName === "y";
    const line = across ? { x0: 0, x1: 1, xref: "paper", y0: at, y1: at } : { y0: 0, y1: 1, yref: "paper", x0: at, x1: at };
    const label = { text: `float32: ${at.toFixed(4)}`, showarrow: false, yanchor: "bottom" };
    const place = logarithmic ? Math.log10(at) : at;
    const where = across ? { x: 1, xref: "paper", xanchor: "right", y: place } : { y: 1, yref: "paper", x: place };
    return {
      shape: { type: "line", line: { color: "#1d2733", width: 1, dash: "dash" }, ...line },
      annotation: { ...label, ...where },
    };
  }

  function draw() {
    const x = control("x-figure").value, y = control("y-figure").value;
    const logX = control("x-log").checked, logY = control("y-log").checked;
    const lines = [["x", x, logX], ["y", y, logY]].filter(([, name]) => name === "accuracy").map(([name, , log]) => floatLine(name, log));
    const layout = {
      xaxis: axis(x, logX), yaxis: axis(y, logY), hovermode: "closest", margin: { l: 70, r: 15, t: 15, b: 60 },
      legend: { orientation: "h", y: -0.16 }, plot_bgcolor: "white", font: { color: "#1d2733" },
      hoverlabel: { align: "left", bgcolor: "white", bordercolor: "#5b6672", font: { family: "monospace", size: 11, color: "#1d2733" } },
      shapes: lines.map((line) => line.shape), annotations: lines.map((line) => line.annotation),
    };
    // these buttons alone: by default there is one that sends the chart to Plotly's own servers
    const buttons = [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
    const settings = { responsive: true, displaylogo: false, modeBarButtons: buttons };
    return Plotly.react(plot, traces(x, y), layout, settings);
  }

  // a search's folder may have been moved since: where the page lies now, its assignments lie too
  function folder() {
    if (location.protocol !== "file:") return data.folder;
    const path = decodeURIComponent(location.pathname);
    return path.slice(0, path.lastIndexOf("/")) || "/";
  }

  function quoted(text) {
    return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
  }

  function exportCommand(trial) {
    const words = ["dse", "export", "--assignment", `${folder()}/${trial.file}`, "--out", `model-${String(trial.number).padStart(3, "0")}.onnx`];
    return [...words, ...(data.dataDir ? ["--data-dir", data.dataDir] : [])].map(quoted).join(" ");
  }

  async function copy(box, button) {
    try {
      await navigator.clipboard.writeText(box.textContent);
    } catch {
      getSelection().selectAllChildren(box);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  // long names of layers and quantizers may go on in a new line after these signs
  function breakable(cell, text) {
    text.split(/(?<=[.:+_])/).forEach((part) => cell.append(part, document.createElement("wbr")));
    return cell;
  }

  function table(headers, rows) {
    const made = element("table", "", panel);
    const head = element("tr", "", element("thead", "", made));
    headers.forEach((text) => element("th", text, head));
    const body = element("tbody", "", made);
    rows.forEach((cells) => {
      const row = element("tr", "", body);
      cells.forEach((cell) => {
        const numeric = typeof cell === "number";
        breakable(element("td", "", row), numeric ? number(cell) : cell).className = numeric ? "number" : "";
      });
    });
  }

  function showCommand(trial) {
    if (!trial.file) {
      element("p", "Not on the front, so there is no file of it; trials.csv has its formats.", panel).className = "hint";
      return;
    }
    element("p", "Export it:", panel);
    const box = element("pre", exportCommand(trial), panel);
    box.id = "export-command";
    const button = element("button", "Copy", panel);
    button.id = "copy-command";
    button.addEventListener("click", () => copy(box, button));
  }

  function show(trial) {
    selected = trial.number;
    panel.replaceChildren();
    element("h3", `Trial ${trial.number}: ${trial.origin}`, panel);
    element("p", KINDS[trial.kind].name + (trial.uniform && trial.kind !== "uniform" ? ", uniform" : ""), panel).className = "hint";
    showCommand(trial);
    table(["figure", "value"], data.figures.map((figure, index) => [figure.header, trial.figures[index]]));
    Object.entries(trial.remarks).forEach(([name, remark]) => { element("p", `${name}: ${remark}`, panel).className = "hint"; });
    if (trial.networkSteps) element("p", `Steps on the network: ${trial.networkSteps}`, panel);
    const withSteps = trial.steps.some((index) => data.texts[index]);
    const rows = data.layers.map((name, index) => {
      const cells = [name, data.texts[trial.weights[index]], data.texts[trial.activations[index]]];
      return withSteps ? [...cells, data.texts[trial.steps[index]]] : cells;
    });
    table(["layer", "weight", "activation", ...(withSteps ? ["steps"] : [])], rows);
    document.querySelectorAll("tr[data-trial]").forEach((row) => {
      row.classList.toggle("selected", Number(row.dataset.trial) === trial.number);
    });
    return draw();
  }

  function fill(id, logId, name) {
    const select = control(id), check = control(logId);
    data.figures.forEach((figure) => { element("option", figure.header, select).value = figure.name; });
    select.value = figureIndex.has(name) ? name : data.figures[0].name;
    const chosen = () => data.figures[figureIndex.get(select.value)];
    const positive = () => data.trials.every((trial) => value(trial, select.value) > 0);
    const follow = () => { check.checked = chosen().logarithmic; check.disabled = !positive(); };
    follow();
    select.addEventListener("change", () => { follow(); draw(); });
    check.addEventListener("change", draw);
  }

  function connectRows() {
    document.querySelectorAll("tr[data-trial]").forEach((row) => {
      const trial = byNumber.get(Number(row.dataset.trial));
      if (!trial) return;
      row.tabIndex = 0;
      row.addEventListener("click", () => show(trial));
      row.addEventListener("keydown", (event) => { if (event.key === "Enter") show(trial); });
    });
  }

  fill("x-figure", "x-log", data.x);
  fill("y-figure", "y-log", data.y);
  connectRows();
  if (data.dropped) {
    control("front-hint").textContent = `${data.dropped} trials that were dropped after few samples are not shown: they have no accuracy.`;
  }
  draw().then(() => plot.on("plotly_click", (event) => {
    const point = event.points.find((one) => one.customdata !== undefined);
    if (point) show(byNumber.get(point.customdata));
  }));
})();
