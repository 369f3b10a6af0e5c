"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const TERMS = [
    ["device", "device compute"], ["encode", "encode"], ["up", "uplink"], ["message", "round trip"],
    ["decode", "decode"], ["server", "server compute"], ["down", "downlink"],
  ];
  const ROWS_SHOWN = 60;
  let everything = false;

  // -- words and numbers --------------------------------------------------------------------------

  const scaled = (value, steps) => {
    const step = steps.find(([limit]) => Math.abs(value) < limit) || steps[steps.length - 1];
    const number = value / step[1];
    return `${number === 0 ? 0 : Number(number.toPrecision(3))} ${step[2]}`;
  };
  const time = (ns) => scaled(ns, [[1e3, 1, "ns"], [1e6, 1e3, "µs"], [1e9, 1e6, "ms"], [Infinity, 1e9, "s"]]);
  const bytes = (n) => n < 1e4 ? `${Math.round(n)} B` : scaled(n, [[1e6, 1e3, "kB"], [1e9, 1e6, "MB"], [Infinity, 1e9, "GB"]]);
  const energy = (nj) => scaled(nj, [[1e3, 1, "nJ"], [1e6, 1e3, "µJ"], [1e9, 1e6, "mJ"], [Infinity, 1e9, "J"]]);
  const rate = (bits) => scaled(bits, [[1e6, 1e3, "kbit/s"], [1e9, 1e6, "Mbit/s"], [Infinity, 1e9, "Gbit/s"]]);
  const shorten = (text, length) => text.length <= length ? text : text.slice(0, length / 2 - 1) + "…" + text.slice(-length / 2);
  const letters = document.createElement("canvas").getContext("2d");
  letters.font = "12px system-ui, sans-serif";
  const wide = (text) => letters.measureText(text).width;
  // Shortens a text until it fits into so many pixels.
  const fitted = (text, pixels) => {
    let length = text.length, shown = text;
    while (length > 4 && wide(shown) > pixels) shown = shorten(text, length = Math.min(length - 1, Math.ceil(length * pixels / wide(shown))));
    return shown;
  };
  const SHOW = { latency: time, energy: energy, bytes: bytes };

  // -- the model ----------------------------------------------------------------------------------

  const prefix = (key) => data.groups.reduce((sums, group) => (sums.push(sums[sums.length - 1] + group[key]), sums), [0]);
  const deviceNs = prefix("device_ns"), serverNs = prefix("server_ns"), weights = prefix("weight_bytes"), deviceNj = prefix("device_nj");
  const last = data.groups.length;
  const working = data.groups.map((group) => group.working_bytes);
  const largest = (from, to) => working.slice(from, to).reduce((most, value) => Math.max(most, value), 0);
  const inputs = data.tensors.filter((tensor) => tensor.input);
  const sent = (cut) => cut.sends.map((number) => data.tensors[number]);
  const compiled = new Set(data.compiled);
  const realInputs = inputs.some((tensor) => tensor.preview.length);
  const assumedPower = !data.active_uw && !data.groups.some((group) => group.device_nj);
  const returned = (groups) => data.tensors.filter((tensor) => tensor.output && tensor.producer >= groups);

  const placements = [
    { label: "server only", groups: 0, name: "raw input", kind: "" },
    ...data.cuts.map((cut) => ({ label: cut.id, groups: cut.groups, name: cut.after, kind: cut.kind, cut })),
    { label: "device only", groups: last, name: "nothing is sent", kind: "" },
  ];
  for (const row of placements) {
    row.sent = row.cut ? sent(row.cut) : row.groups === last ? [] : inputs;
    row.back = row.groups === last ? [] : returned(row.groups);
    row.deviceMemory = weights[row.groups] + largest(0, row.groups);
    row.serverMemory = weights[last] - weights[row.groups] + largest(row.groups, last);
  }

  const wire = (bytes, bitsPerSecond) => Math.ceil(bytes * 8e9 / bitsPerSecond);

  // The cheapest transfer option of a tensor under the conditions, chosen as the planner does. An
  // option is a list: codec, bytes, and nanoseconds to encode and to decode.
  const fold = (ways, bitsPerSecond, sender, receiver) => ways.map(([codec, size, encode, decode]) => ({
    codec, size, encode: encode / sender, wire: wire(size, bitsPerSecond), decode: decode / receiver,
  })).reduce((best, way) => !best || way.encode + way.wire + way.decode < best.encode + best.wire + best.decode ? way : best, null);

  // The transfer options that the planner gives the baselines for an input.
  const preferred = (ways, wanted) => { const found = ways.filter(([codec]) => wanted(codec)); return found.length ? found : ways.slice(0, 1); };
  const unpacked = (tensor) => preferred(tensor.ways, (codec) => codec === "raw");
  const packed = (tensor) => preferred([...tensor.ways, ...tensor.preview], (codec) => codec !== "raw");
  const silence = { device_ns: 0, exchange_ns: 0, up_bytes: 0, down_bytes: 0 };

  function price(row, now, ways = (tensor) => tensor.ways) {
    const message = row.groups === last ? silence : data.message;
    const terms = { device: deviceNs[row.groups] / now.device, server: (serverNs[last] - serverNs[row.groups]) / now.server,
      encode: message.device_ns / now.device, decode: 0, up: wire(message.up_bytes, now.up), down: wire(message.down_bytes, now.down),
      message: row.groups === last ? 0 : now.rtt + message.exchange_ns };
    let sent = message.up_bytes + message.down_bytes, deviceCodec = terms.encode, serverCodec = 0, possible = true;
    for (const tensor of row.sent) {
      const way = fold(ways(tensor), now.up, now.device, now.server);
      if (!way) { possible = false; continue; }
      terms.encode += way.encode; terms.up += way.wire; terms.decode += way.decode; sent += way.size;
      deviceCodec += way.encode; serverCodec += way.decode;
    }
    for (const tensor of row.back) {
      const way = fold(tensor.ways, now.down, now.server, now.device);
      if (!way) { possible = false; continue; }
      terms.encode += way.encode; terms.down += way.wire; terms.decode += way.decode; sent += way.size;
      serverCodec += way.encode; deviceCodec += way.decode;
    }
    const link = data.link;
    const active = assumedPower ? now.power : data.active_uw;
    const computed = assumedPower ? 1e-6 * active * terms.device : deviceNj[row.groups] / now.device;
    const spent = computed + 1e-6 * (active * deviceCodec + link.up_uw * terms.up + link.down_uw * terms.down
      + data.idle_uw * (terms.server + serverCodec + terms.message)) + (row.groups === last ? 0 : link.tail_nj);
    const latency = possible ? Object.values(terms).reduce((sum, value) => sum + value, 0) : Infinity;
    return { row, terms, latency, energy: possible ? spent : Infinity, bytes: possible ? sent : Infinity };
  }

  const codecsOfInputs = (now) => [...new Set(inputs.map((tensor) => fold(packed(tensor), now.up, now.device, now.server)).filter(Boolean).map((way) => way.codec))].join(", ");

  // -- conditions ---------------------------------------------------------------------------------

  const load = data.load_percent / 100;
  const CONTROLS = [
    { id: "up", label: "Uplink", show: rate, start: data.link.up_bit_s, low: 1e4, high: 1e10 },
    { id: "down", label: "Downlink", show: rate, start: data.link.down_bit_s, low: 1e4, high: 1e10 },
    { id: "rtt", label: "Round trip", show: time, start: data.link.rtt_ns, low: 1e4, high: 2e9, zero: true },
    { id: "device", label: "Device speed", show: (x) => `× ${Number(x.toPrecision(3))}`, start: 1, low: 0.02, high: 50 },
    { id: "server", label: "Server speed", show: (x) => `× ${Number(x.toPrecision(3))}`, start: 1 / load, low: 0.02, high: 50 },
    ...(assumedPower ? [{ id: "power", label: "Device power", show: (x) => `${Number((x / 1e6).toPrecision(2))} W`, start: 2e6, low: 1e5, high: 1e8 }] : []),
  ];
  const STEPS = 400;
  const toStep = (control, value) => control.zero && value < control.low ? 0
    : Math.round(STEPS * Math.log(value / control.low) / Math.log(control.high / control.low));
  const toValue = (control, step) => control.zero && step === 0 ? 0 : control.low * (control.high / control.low) ** (step / STEPS);
  for (const control of CONTROLS) {
    control.value = control.start;
    const label = document.createElement("label");
    control.output = document.createElement("output");
    control.input = Object.assign(document.createElement("input"), { type: "range", min: 0, max: STEPS, id: `slider-${control.id}` });
    label.append(control.label, control.output, control.input);
    $("sliders").append(label);
    control.input.addEventListener("input", () => { control.value = toValue(control, Number(control.input.value)); draw(); });
  }
  const reset = () => {
    for (const control of CONTROLS) {
      control.value = control.start;
      control.input.value = Math.min(STEPS, Math.max(0, toStep(control, control.start)));
    }
    draw();
  };
  const conditions = () => Object.fromEntries(CONTROLS.map((control) => [control.id, control.value]));

  // -- drawing ------------------------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";
  const node = (name, attributes = {}, ...children) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const put = (id, element) => $(id).replaceChildren(element);
  const figure = (width, height, label, ...children) =>
    node("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);
  const hint = (text) => { const title = node("title"); title.textContent = text; return title; };
  const niceStep = (most, ticks) => {
    const power = 10 ** Math.floor(Math.log10(most || 1));
    return [1, 2, 5, 10].map((x) => x * power).find((x) => most / x <= ticks) || 10 * power;
  };

  function draw() {
    for (const control of CONTROLS) control.output.textContent = control.show(control.value);
    const now = conditions(), objective = $("objective").value;
    const raw = price(placements[0], now, unpacked);
    const priced = [raw, ...placements.slice(1).map((row) => price(row, now))];
    const splits = priced.filter((entry) => entry.row.cut);
    const device = priced[priced.length - 1];
    const compressed = price(placements[0], now, packed);
    const baselines = [["device only", device, "device"], ["server only, raw input", raw, "server, raw"],
      [`server only, compressed input (${codecsOfInputs(now)})`, compressed, `server, ${codecsOfInputs(now)}`]];
    const best = splits.reduce((a, b) => b[objective] < a[objective] ? b : a);
    const winner = baselines.reduce((a, b) => b[1][objective] < a[1][objective] ? b : a);
    const show = SHOW[objective];
    const pays = best[objective] < winner[1][objective];
    $("verdict").replaceChildren("Best cut ", bold(best.row.label), ` after ${shorten(best.row.name, 60)}: ${show(best[objective])}. `,
      bundleText(splits, objective), pays ? `Best without a split, ${winner[0]}: ${show(winner[1][objective])}.` : `No split pays: ${winner[0]} takes ${show(winner[1][objective])}.`);
    document.body.dataset.best = best.row.label;
    drawBars(splits, baselines, best, objective);
    drawPareto(priced, best);
    drawMemory(splits, best);
    drawBytes(splits, best);
    drawDiagram(best);
  }
  const bundleText = (splits, objective) => {
    const made = splits.filter((entry) => compiled.has(entry.row.label)).map((entry) => `${entry.row.label} (${SHOW[objective](entry[objective])})`);
    if (made.length) return `The bundle is cut at ${made.join(" and ")}. `;
    return data.compiled_tensors.length ? `The bundle is cut elsewhere, at ${data.compiled_tensors.map((names) => shorten(names.join(" + "), 60)).join(" and ")}. ` : "";
  };
  const bold = (text) => Object.assign(document.createElement("b"), { textContent: text });

  function drawBars(splits, baselines, best, objective) {
    const byValue = [...splits].sort((a, b) => a[objective] - b[objective]);
    const kept = new Set(everything ? splits : byValue.slice(0, ROWS_SHOWN));
    const rows = ($("order").value === "value" ? byValue : splits).filter((entry) => kept.has(entry));
    $("more").hidden = everything || splits.length <= ROWS_SHOWN;
    $("more").textContent = `Show all ${splits.length} cuts (these are the best ${ROWS_SHOWN})`;
    // Draw at the width that is there, so that letters keep their size on a phone.
    const width = Math.max(320, $("bars").clientWidth), narrow = width < 600, left = narrow ? 110 : 190, right = 75;
    const step = 20, top = 22 + 16 * baselines.length;
    const lines = baselines.filter(([, entry]) => Number.isFinite(entry.latency));
    const longest = Math.max(...rows.map((entry) => entry.latency).filter(Number.isFinite));
    // A hopeless baseline must not flatten the bars: beyond twice the longest bar, it is only named
    // at the edge.
    const most = Math.max(longest, ...lines.map(([, entry]) => Math.min(entry.latency, 2 * longest)));
    const x = (value) => left + (width - left - right) * value / most;
    const height = top + rows.length * step + 8;
    const parts = [], labels = [];
    for (let tick = 0, every = niceStep(most, narrow ? 3 : 6); tick <= most; tick += every) {
      parts.push(node("line", { class: "axis", x1: x(tick), x2: x(tick), y1: top - 4, y2: height }), text(x(tick), 12, time(tick), "soft", "middle"));
    }
    rows.forEach((entry, index) => {
      const y = top + index * step;
      const style = entry === best ? "best" : "", id = `${entry.row.label}${compiled.has(entry.row.label) ? " ◆" : ""}  `;
      const group = node("g", {},
        hint(`cut ${entry.row.label} (${entry.row.kind}) after ${entry.row.name}\n` + TERMS.map(([key, name]) => `${name}: ${time(entry.terms[key])}`).join("\n") + `\nsent: ${bytes(entry.bytes)}`),
        text(0, y + 13, id + fitted(entry.row.name, left - 16 - wide(id)), style));
      let from = 0;
      for (const [key] of TERMS) {
        const size = entry.terms[key];
        if (size > 0) group.append(node("rect", { x: x(from), y: y + 2, width: Math.max(0.5, x(size) - left), height: step - 5, fill: `var(--${key})` }));
        from += size;
      }
      labels.push(text(x(from) + 5, y + 13, time(entry.latency), `over ${style}`));
      parts.push(group);
    });
    lines.forEach(([name, entry, short], index) => {
      const beyond = entry.latency > most, at = x(Math.min(entry.latency, most)), y = 28 + index * 16;
      const label = `${narrow ? short : name}: ${time(entry.latency)}${beyond ? " →" : ""}`, leftwards = at + 4 + wide(label) > width;
      parts.push(node("line", { class: "baseline", x1: at, x2: at, y1: y - 8, y2: height }));
      labels.push(text(leftwards ? at - 4 : at + 4, y + 3, label, "soft over", leftwards ? "end" : "start"));
    });
    put("bars", figure(width, height, `Latency of ${rows.length} cuts, best ${best.row.label}`, ...parts, ...labels));
  }

  function text(x, y, content, style = "", anchor = "start") {
    const element = node("text", { x, y, class: style, "text-anchor": anchor });
    element.textContent = content;
    return element;
  }

  function drawPareto(priced, best) {
    const points = priced.filter((entry) => Number.isFinite(entry.latency) && Number.isFinite(entry.energy));
    const width = Math.max(300, Math.min(480, $("pareto").clientWidth)), height = 300, left = 60, bottom = 34;
    const log = (value) => Math.log10(Math.max(value, 1));
    const span = (key) => { const values = points.map((entry) => log(entry[key])); const low = Math.min(...values), high = Math.max(...values); return [low - 0.05, Math.max(high, low + 0.1) + 0.05]; };
    const [xLow, xHigh] = span("latency"), [yLow, yHigh] = span("energy");
    const x = (value) => left + (width - left - 12) * (log(value) - xLow) / (xHigh - xLow);
    const y = (value) => 10 + (height - 10 - bottom) * (1 - (log(value) - yLow) / (yHigh - yLow));
    const front = [];
    for (const entry of [...points].sort((a, b) => a.latency - b.latency || a.energy - b.energy)) {
      if (!front.length || entry.energy < front[front.length - 1].energy) front.push(entry);
    }
    const parts = [
      node("line", { class: "axis", x1: left, x2: width, y1: height - bottom, y2: height - bottom }), node("line", { class: "axis", x1: left, x2: left, y1: 0, y2: height - bottom }),
      text(width - 4, height - 6, `latency: ${time(10 ** xLow)} to ${time(10 ** xHigh)}, logarithmic`, "soft", "end"),
      text(left + 4, 12, `energy up to ${energy(10 ** yHigh)}`, "soft"), text(left - 6, height - bottom, energy(10 ** yLow), "soft", "end"),
      node("polyline", { points: front.map((entry) => `${x(entry.latency)},${y(entry.energy)}`).join(" "), fill: "none", stroke: "var(--mark)", "stroke-width": 1.5 }),
    ];
    for (const entry of [...points.filter((each) => each !== best), best]) {
      const outside = !entry.row.cut;
      const dot = node("circle", { cx: x(entry.latency), cy: y(entry.energy), r: entry === best ? 6 : 4, fill: entry === best ? "var(--mark)" : outside ? "var(--ink)" : "var(--device)" },
        hint(`${outside ? "" : "cut "}${entry.row.label}: ${time(entry.latency)}, ${energy(entry.energy)}`));
      parts.push(dot);
      if (outside) {
        const leftwards = x(entry.latency) > width - 90;
        parts.push(text(x(entry.latency) + (leftwards ? -8 : 8), y(entry.energy) + 4, entry.row.label, "soft", leftwards ? "end" : "start"));
      }
    }
    put("pareto", figure(width, height, "Latency against energy of every placement", ...parts));
  }

  function drawMemory(splits, best) {
    const width = Math.max(300, Math.min(480, $("memory").clientWidth)), height = 300, left = 12, bottom = 34;
    const most = Math.max(...splits.map((entry) => Math.max(entry.row.deviceMemory, entry.row.serverMemory)), 1);
    const x = (index) => left + (width - 2 * left) * (splits.length > 1 ? index / (splits.length - 1) : 0.5);
    const y = (value) => 24 + (height - 24 - bottom) * (1 - value / most);
    const line = (key, color) => node("polyline", { points: splits.map((entry, index) => `${x(index)},${y(entry.row[key])}`).join(" "), fill: "none", stroke: color, "stroke-width": 2 });
    const at = splits.indexOf(best);
    const key = (index, color, name) => [node("rect", { x: left + 90 * index, y: 4, width: 10, height: 10, fill: color }), text(left + 90 * index + 15, 13, name, "soft")];
    put("memory", figure(width, height, "Memory of device and server for every cut",
      ...key(0, "var(--device)", "device"), ...key(1, "var(--server)", "server"),
      text(width - left, 13, `up to ${bytes(most)}`, "soft", "end"),
      node("line", { class: "axis", x1: 0, x2: width, y1: y(0), y2: y(0) }),
      text(left, y(0) + 14, `cut ${splits[0].row.label}`, "soft"), text(width - left, y(0) + 14, `cut ${splits[splits.length - 1].row.label}`, "soft", "end"),
      line("deviceMemory", "var(--device)"), line("serverMemory", "var(--server)"),
      ...splits.flatMap((entry, index) => ["deviceMemory", "serverMemory"].map((key) => node("circle", { cx: x(index), cy: y(entry.row[key]), r: splits.length > 80 ? 1.5 : 3, fill: key === "deviceMemory" ? "var(--device)" : "var(--server)" },
        hint(`cut ${entry.row.label}: device ${bytes(entry.row.deviceMemory)}, server ${bytes(entry.row.serverMemory)}`)))),
      node("line", { class: "chosen", x1: x(at), x2: x(at), y1: 18, y2: y(0) }),
      text(width / 2, height - 4, `cut ${best.row.label}: device ${bytes(best.row.deviceMemory)}, server ${bytes(best.row.serverMemory)}`, "soft", "middle")));
  }

  // Columns of the table, without the widths that change nothing.
  const changes = (bits) => !bits || data.tensors.some((tensor) => data.codings.some((coding, index) =>
    coding.bits === bits && tensor.sizes[index] !== tensor.sizes[data.codings.findIndex((other) => !other.bits && other.codec === coding.codec)]));
  const widths = [...new Set(data.codings.map((coding) => coding.bits))].filter(changes);
  const columns = widths.flatMap((bits) => data.codings.map((coding, index) => ({ ...coding, index })).filter((coding) => coding.bits === bits));
  const total = (tensors, key) => tensors.reduce((sum, tensor) => sum + key(tensor), 0);

  function drawBytes(splits, best) {
    const input = total(inputs, (tensor) => tensor.raw_bytes);
    const above = document.createElement("tr"), below = document.createElement("tr");
    above.append(spanning("cut", 1, 2), spanning("boundary", 1, 2, "name"));
    for (const bits of widths) above.append(spanning(bits ? `int${bits}` : "lossless", columns.filter((coding) => coding.bits === bits).length, 1, "group"));
    above.append(spanning("raw / input", 1, 2));
    below.append(...columns.map((coding) => cell("th", coding.codec, coding.codec === data.codec && coding.bits === data.bits ? "now" : "")));
    const rows = splits.map((entry) => {
      const line = document.createElement("tr"), tensors = entry.row.sent;
      if (entry === best) line.className = "best";
      const boundary = cell("td", tensors.map((tensor) => tensor.name).join(" + "), "name");
      boundary.append(cell("small", tensors.map((tensor) => tensor.type).join(" + ")));
      line.append(cell("td", `${entry.row.label}${compiled.has(entry.row.label) ? " ◆" : ""}`), boundary,
        ...columns.map(({ index }) => cell("td", tensors.every((tensor) => tensor.sizes[index] !== null) ? bytes(total(tensors, (tensor) => tensor.sizes[index])) : "")),
        cell("td", input ? `${Number((total(tensors, (tensor) => tensor.raw_bytes) / input).toPrecision(3))} ×` : ""));
      return line;
    });
    const head = document.createElement("thead"), body = document.createElement("tbody");
    head.append(above, below);
    body.append(...rows);
    $("bytes").replaceChildren(head, body);
  }
  const spanning = (content, columns, rows, style = "") => Object.assign(cell("th", content, style), { colSpan: columns, rowSpan: rows });
  const cell = (kind, content, style = "") => Object.assign(document.createElement(kind), { textContent: content, className: style });

  function drawDiagram(best) {
    const width = Math.max(300, Math.min(720, $("diagram").clientWidth - 4)), box = width - 90, gap = 34, lead = 20;
    const fits = box - 16, center = 10 + box / 2;
    const lines = (group) => [`${group.nodes} node${group.nodes > 1 ? "s" : ""}` + (group.macs ? `, ${scaled(group.macs, [[1e3, 1, ""], [1e6, 1e3, "k"], [1e9, 1e6, "M"], [Infinity, 1e9, "G"]])} MACs` : "") + `, ${bytes(group.weight_bytes)} of weights`,
      group.operators.map(([name, count]) => count > 1 ? `${count} × ${name}` : name).join(", ") + (group.kinds > group.operators.length ? ", …" : "")];
    let y = lead;
    const parts = [text(center, 14, fitted(inputs.map((tensor) => `${tensor.name}  ${tensor.type}`).join(", "), box), "soft", "middle")];
    data.groups.forEach((group, index) => {
      const place = index < best.row.groups ? "device" : "server";
      parts.push(node("line", { class: "edge", x1: center, x2: center, y1: y - (index ? gap : 4), y2: y }));
      if (index) {
        const cut = data.cuts[index - 1], chosen = index === best.row.groups, made = compiled.has(cut.id);
        const crossing = `cut ${cut.id}: ${sent(cut).map((tensor) => tensor.type).join(" + ")}`;
        parts.push(text(center + 8, y - gap / 2 + 4, fitted(crossing, 0.9 * (width - center - 8)), chosen ? "chosen-label" : "soft"));
        if (made) parts.push(node("line", { class: "made", x1: 0, x2: width, y1: y - 8, y2: y - 8 }), text(0, y - gap / 2 + 3, "◆ bundle", "soft"));
        if (chosen) parts.push(node("line", { class: "chosen", x1: 0, x2: width, y1: y - 4, y2: y - 4 }));
      }
      const height = group.nodes > 1 ? 40 : 24, [first, second] = lines(group);
      parts.push(node("rect", { class: `block ${place}`, x: 10, y, width: box, height, rx: 5 }, hint(`${first}\n${second}`)),
        text(18, y + 16, fitted(group.nodes > 1 ? second : `${second}${group.weight_bytes ? `, ${bytes(group.weight_bytes)} of weights` : ""}`, fits)));
      if (group.nodes > 1) parts.push(text(18, y + 32, fitted(first, fits), "soft"));
      parts.push(text(10 + box + 10, y + 16, place, "soft"));
      y += height + gap;
    });
    const drawing = figure(width, y, `The model as ${data.groups.length} blocks, cut at ${best.row.label}`, ...parts);
    drawing.style.maxWidth = `${width}px`;
    put("diagram", drawing);
    const mark = drawing.querySelector(".chosen");
    if (mark) $("diagram").scrollTop = Number(mark.getAttribute("y1")) * drawing.clientWidth / width - $("diagram").clientHeight / 2;
  }

  function drawRejected() {
    $("rejected-title").textContent = `Rejected positions (${data.rejected_count})`;
    if (!data.rejected.length) $("rejected").textContent = "None: every position is a legal cut.";
    let listed = 0;
    for (const { why, positions } of data.rejected) {
      const details = document.createElement("details"), summary = document.createElement("summary"), list = document.createElement("ul");
      const first = positions[0][0], final = positions[positions.length - 1][0];
      summary.textContent = positions.length > 1 ? `${first} to ${final} (${positions.length} positions): ${why}` : `${first}: ${why}`;
      for (const [id, after, own] of positions) {
        list.append(Object.assign(document.createElement("li"), { textContent: `${id} after ${after}${own ? `: ${own}` : ""}` }));
      }
      details.append(summary, list);
      $("rejected").append(details);
      listed += positions.length;
    }
    if (data.rejected_count > listed) $("rejected").append(`The first ${listed} are listed; see irsplit cuts for all.`);
  }

  const shownCuts = data.legal_count > data.cuts.length ? `, the ${data.cuts.length} that matter shown` : "";
  const coding = `${data.bits ? `int${data.bits}` : "lossless"}, ${data.codec || "raw"}`;
  $("subtitle").textContent = `${data.dialect}, ${data.legal_count} legal cuts${shownCuts}; device ${data.device}, server ${data.server}, link ${data.link.name}; boundary ${coding}`;
  const tried = data.measured_ratios, agreed = data.agreement;
  $("unknown").textContent = [
    data.open ? `${data.open}.` : "",
    tried ? `Sizes in ${tried.bits ? `int${tried.bits}` : "lossless"}, ${data.codec} are measured on ${tried.calls} calibration inputs.` : "",
    agreed ? `The outputs agree by ${Number(agreed.share.toPrecision(4))} (${agreed.worst.measure} of ${agreed.worst.outputs.join(", ")}), measured on ${agreed.calls} calibration inputs.` : "",
    assumedPower ? "The device's profile states no power: what is drawn of energy assumes the slider's." : "",
    realInputs ? "" : "How small a real input gets is not known: the baseline takes an average (give the report a real input, or calibration inputs to compile).",
  ].join(" ");
  for (const [key, name] of TERMS) $("legend").append(Object.assign(document.createElement("span"), { innerHTML: `<i style="background:var(--${key})"></i>${name}` }));
  $("legend").append(Object.assign(document.createElement("span"), { innerHTML: '<i class="line"></i>baselines' }));
  $("objective").value = ["latency", "energy", "bytes"].includes(data.objective) ? data.objective : "latency";
  $("objective").addEventListener("change", draw);
  $("order").addEventListener("change", draw);
  $("reset").addEventListener("click", reset);
  $("more").addEventListener("click", () => { everything = true; draw(); });
  let resizing = 0;
  addEventListener("resize", () => { cancelAnimationFrame(resizing); resizing = requestAnimationFrame(draw); });
  drawRejected();
  reset();
})();
