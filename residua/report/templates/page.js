"use strict";
(() => {
  const root = document.documentElement;
  const touch = matchMedia("(pointer: coarse)").matches;
  const plots = [...document.querySelectorAll(".plot")];
  const number = new Intl.NumberFormat("en-GB");
  const unitNames = { minutes: "minutes", epoch: "epochs", step: "steps" };
  let unit = null;

  /* ---- figures ---- */

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // A copy of a figure in which every "var(--name)" has become the colour that it is now.
  const resolved = (value) => {
    if (Array.isArray(value)) return value.map(resolved);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item)]));
    }
    if (typeof value === "string") {
      return value.replace(/var\((--[\w-]+)\)/g, (_, name) => colour(name));
    }
    return value;
  };

  // plotly reads a little HTML in its texts; names must stay names.
  const asText = (text) =>
    String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // Long names lose their middle: families of names differ at the end as often as at the start.
  const shorter = (text, length) => {
    const letters = [...text];
    if (letters.length <= length) return text;
    const tail = Math.floor(length / 2.5);
    return `${letters.slice(0, length - tail - 1).join("")}…${letters.slice(-tail).join("")}`;
  };

  const axis = () => ({
    gridcolor: colour("--rule"), zeroline: false, linecolor: colour("--rule"),
    tickfont: { color: colour("--muted"), size: 12 }, ticks: "", automargin: true, fixedrange: touch,
    title: { font: { color: colour("--muted"), size: 12 }, standoff: 8 }, separatethousands: true,
  });

  const baseLayout = () => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: colour("--sans"), color: colour("--ink"), size: 13 },
    margin: { l: 30, r: 8, t: 8, b: 36 }, dragmode: touch ? false : "zoom",
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { color: colour("--muted"), size: 12 }, bgcolor: "rgba(0,0,0,0)" },
    hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--rule"), font: { color: colour("--ink"), size: 12, family: colour("--sans") } },
  });

  const merged = (under, over) => {
    const both = { ...under };
    for (const [key, value] of Object.entries(over)) {
      const plain = value && typeof value === "object" && !Array.isArray(value);
      both[key] = plain ? merged(under[key] || {}, value) : value;
    }
    return both;
  };

  const timeFigure = (figure) => {
    const has = figure.data.find((trace) => trace.x_by);
    if (!has) return figure;
    const by = unit in has.x_by ? unit : Object.keys(has.x_by)[0];
    const data = figure.data.map((trace) => ({ ...trace, name: asText(trace.name), x: trace.x_by[by], x_by: undefined }));
    const shapes = (figure.marks || []).map((mark) => ({
      type: "line", yref: "paper", y0: 0, y1: 1, x0: mark[by], x1: mark[by], layer: "below",
      line: { color: "var(--warn)", width: 1, dash: "dot" },
    }));
    const text = by === "step" ? "step %{x:,.0f}" : by === "epoch" ? "epoch %{x:.2~f}" : "%{x:.2~f} minutes";
    return { ...figure, data, layout: { ...figure.layout, shapes, xaxis: { title: { text: unitNames[by] }, rangemode: "tozero", spikecolor: "var(--muted)", spikethickness: 1, unifiedhovertitle: { text } } } };
  };

  const scaleOf = (name) => [[0, `var(--${name}-0)`], [1, `var(--${name}-1)`]];

  // Two layers: the diagonal (right) and the rest (wrong), coloured by the root of the row's share.
  const heatMap = (figure, width) => {
    const size = figure.names.length;
    const grid = () => Array.from({ length: size }, () => new Array(size).fill(null));
    const right = grid(), wrong = grid();
    const texts = { x: [], y: [], text: [], colours: [] };
    const total = (row) => figure.totals[row] || 1;
    for (let r = 0; r < size; r++) for (let c = 0; c < size; c++) if (r !== c) wrong[r][c] = 0;
    for (const [row, column, cell] of figure.cells) {
      const strength = Math.sqrt(cell / total(row));
      (row === column ? right : wrong)[row][column] = strength;
      texts.x.push(column);
      texts.y.push(row);
      texts.text.push(String(cell));
      // Where a cell is more of its full colour than not, the page's own colour is read best.
      texts.colours.push(strength > (row === column ? 0.75 : 0.6) ? "var(--cell-none)" : "var(--ink)");
    }
    const layer = (z, name) => ({
      type: "heatmap", z, zmin: 0, zmax: 1, colorscale: scaleOf(name), showscale: false, hoverinfo: "none",
      hoverongaps: false, xgap: size <= 60 ? 1 : 0, ygap: size <= 60 ? 1 : 0,
    });
    const layers = [layer(wrong, "wrong"), layer(right, "right")];
    layers[0].colorscale = [[0, "var(--cell-none)"], [0.001, "var(--wrong-0)"], [0.7, "var(--wrong-1)"], [1, "var(--wrong-1)"]];
    if (size > 12) return layers;
    const { colours, ...places } = texts;
    const written = { type: "scatter", mode: "text", hoverinfo: "skip", showlegend: false, cliponaxis: true };
    return [...layers, { ...written, ...places, textfont: { size: width < 480 ? 10 : 13, color: colours } }];
  };

  // With very many classes a cell cannot be seen: dots of a size that can.
  const dotMap = (figure) => {
    const layer = (cells, name, size) => {
      const shares = cells.map(([row, , cell]) => Math.sqrt(cell / (figure.totals[row] || 1)));
      return {
        type: "scatter", mode: "markers", hoverinfo: "none", showlegend: false,
        x: cells.map((cell) => cell[1]), y: cells.map((cell) => cell[0]),
        marker: { size, color: shares, cmin: 0, cmax: 0.7, colorscale: [[0, `var(--${name}-0)`], [0.5, `var(--${name}-1)`], [1, `var(--${name}-1)`]], line: { width: 0 } },
      };
    };
    const right = figure.cells.filter(([row, column]) => row === column);
    const wrong = figure.cells.filter(([row, column]) => row !== column).sort((a, b) => a[2] - b[2]);
    return [layer(right, "right", 2.5), layer(wrong, "wrong", 4)];
  };

  const confusionFigure = (figure, width) => {
    const size = figure.names.length;
    const named = size <= 40 && (size <= 24 || width > 480);
    const letters = width < 480 ? 9 : 22;
    const ticks = {
      tickmode: "array", tickvals: named ? figure.names.map((_, i) => i) : [], showgrid: false,
      ticktext: named ? figure.names.map((name) => asText(shorter(name, letters))) : [],
      tickfont: { size: size > 24 ? 10 : 12, color: "var(--muted)" },
      fixedrange: touch || size <= 60, range: [-0.5, size - 0.5], constrain: "domain",
    };
    const longest = Math.max(...figure.names.map((name) => [...name].length));
    return {
      ...figure, data: figure.dots ? dotMap(figure) : heatMap(figure, width), square: true,
      layout: {
        xaxis: { ...ticks, title: { text: "answer" }, tickangle: longest > 3 ? -90 : 0 },
        yaxis: { ...ticks, title: { text: "truth" }, range: [size - 0.5, -0.5], scaleanchor: "x" },
        plot_bgcolor: "var(--cell-none)", margin: { t: 4, r: 4 }, hovermode: "closest",
      },
    };
  };

  const draw = (plot) => {
    try {
      drawn(plot);
    } catch (error) {
      console.error(error);
      plot.dataset.drawn = String(plot.clientWidth);
      plot.textContent = "This figure could not be drawn.";
    }
  };

  const drawn = (plot) => {
    const source = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
    const width = plot.clientWidth;
    const figure = source.kind === "confusion" ? confusionFigure(source, width) : timeFigure(source);
    const axes = ["xaxis", "yaxis", ...Object.keys(figure.layout).filter((key) => /^[xy]axis\d+$/.test(key))];
    const common = merged(baseLayout(), Object.fromEntries(axes.map((key) => [key, axis()])));
    const layout = resolved(merged(common, figure.layout));
    axes.filter((key) => layout[key].type === "log").forEach((key) => { layout[key].exponentformat ||= "power"; });
    layout.height = figure.square ? Math.min(width, 720) : figure.height;
    layout.width = width;
    const config = { displaylogo: false, displayModeBar: false, typesetMath: false, doubleClick: "reset", scrollZoom: false };
    Plotly.react(plot, resolved(figure.data), layout, config);
    if (source.kind === "confusion" && !plot.dataset.listening) listen(plot, source);
    plot.dataset.drawn = String(width);
  };

  const redraw = () => plots.filter((plot) => plot.dataset.drawn).forEach(draw);

  /* ---- the note beside a cell of the confusion matrix ---- */

  const tip = document.getElementById("tip");
  const listen = (plot, figure) => {
    plot.dataset.listening = "yes";
    const counts = new Map(figure.cells.map(([row, column, cell]) => [row * figure.names.length + column, cell]));
    plot.on("plotly_hover", ({ points: [point], event }) => {
      const row = Math.round(point.y), column = Math.round(point.x);
      const cell = counts.get(row * figure.names.length + column) || 0;
      const all = figure.totals[row];
      const share = all ? ` (${(100 * cell / all).toFixed(1)} %)` : "";
      const said = row === column ? "recognised" : `taken for ${figure.names[column]}`;
      tip.textContent = `truth: ${figure.names[row]}\n${said}: ${number.format(cell)} of ${number.format(all)}${share}`;
      tip.hidden = false;
      const x = event.clientX ?? event.touches?.[0]?.clientX ?? 0;
      const y = event.clientY ?? event.touches?.[0]?.clientY ?? 0;
      tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 12 : y + 18}px`;
    });
    plot.on("plotly_unhover", () => { tip.hidden = true; });
  };
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  /* ---- when to draw: near the window, when the scheme, the width or the unit changes, for print ---- */

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
    }
  }, { rootMargin: "800px" });
  plots.forEach((plot) => near.observe(plot));

  const sized = new ResizeObserver((entries) => requestAnimationFrame(() => {
    for (const { target } of entries) {
      const { clientWidth, dataset } = target;
      if (dataset.drawn && clientWidth && Number(dataset.drawn) !== clientWidth) draw(target);
    }
  }));
  plots.forEach((plot) => sized.observe(plot));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => { root.classList.add("printing"); plots.forEach(draw); });
  addEventListener("afterprint", () => { root.classList.remove("printing"); redraw(); });

  const switches = [...document.querySelectorAll(".switch button")];
  for (const button of switches) {
    button.addEventListener("click", () => {
      unit = button.dataset.unit;
      switches.forEach((other) => other.setAttribute("aria-pressed", String(other.dataset.unit === unit)));
      redraw();
    });
  }

  /* ---- tables ---- */

  const fine = new Intl.NumberFormat("en-GB", { maximumSignificantDigits: 4 });
  const cellText = (value) => {
    if (value === null) return "–";
    if (Array.isArray(value)) return value.map(cellText).join(", ");
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value)) return number.format(value);
    return Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5 ? value.toExponential(3) : fine.format(value);
  };

  // Rows beyond the first wait as data until somebody wants them.
  const fill = (table) => {
    const source = table.dataset.rows && document.getElementById(table.dataset.rows);
    if (!source) return;
    for (const values of JSON.parse(source.textContent)) {
      const row = table.tBodies[0].insertRow();
      for (const value of values) {
        const cell = row.insertCell();
        cell.textContent = cellText(value);
        if (typeof value === "string") cell.className = "text";
        if (typeof value === "number" || value === null) cell.dataset.value = value ?? "";
      }
    }
    document.querySelector(`.all-rows[data-table="${table.dataset.rows}"]`)?.remove();
    delete table.dataset.rows;
  };
  for (const button of document.querySelectorAll(".all-rows")) {
    button.addEventListener("click", () => fill(document.querySelector(`table[data-rows="${button.dataset.table}"]`)));
  }

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? -Infinity : Number(cell.dataset.value);
  };
  const names = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => (typeof a === "string" ? names.compare(a, b) : a - b);

  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        fill(table);
        const now = heading.getAttribute("aria-sort");
        const up = now ? now === "descending" : column === 0 || table.classList.contains("scores");
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => (up ? 1 : -1) * compare(valueOf(a, column), valueOf(b, column)));
        table.tBodies[0].append(...rows);
      });
    });
  }

  for (const input of document.querySelectorAll(".filter")) {
    const rows = [...input.parentElement.querySelectorAll("table.sortable tbody tr")];
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    });
  }

  /* ---- copying, definitions, where we are ---- */

  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const done = await copied(button.parentElement.querySelector("code").textContent);
      button.textContent = done ? "Copied" : "Press Ctrl+C";
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }

  for (const button of document.querySelectorAll(".term")) {
    const note = document.getElementById(button.getAttribute("popovertarget"));
    button.addEventListener("click", () => requestAnimationFrame(() => {
      if (!note.matches(":popover-open")) return;
      const at = button.getBoundingClientRect();
      const below = at.bottom + 8 + note.offsetHeight < innerHeight;
      note.style.margin = "0";
      note.style.left = `${Math.max(16, Math.min(at.left, innerWidth - note.offsetWidth - 16))}px`;
      note.style.top = `${below ? at.bottom + 8 : Math.max(8, at.top - note.offsetHeight - 8)}px`;
    }));
  }

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const here = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.classList.remove("here"));
      links.get(entry.target.id)?.classList.add("here");
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  document.querySelectorAll("section[id]").forEach((section) => here.observe(section));
})();
