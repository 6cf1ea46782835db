// Shows where a chosen phrase fits: cosines are dot products of the fp16 embeddings in the page.
"use strict";
(() => {
  const block = document.getElementById("explore-data");
  if (!block) return;
  const data = JSON.parse(block.textContent);
  const stage = document.getElementById("stage");
  const menus = data.menus ? Object.entries(data.menus) : [];

  // Decodes a base64 string of little-endian fp16 numbers to float32.
  const floats = (coded) => {
    const bytes = Uint8Array.from(atob(coded), (c) => c.charCodeAt(0));
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) => {
      const bits = bytes[2 * i] | (bytes[2 * i + 1] << 8);
      const exponent = (bits >> 10) & 31, fraction = bits & 1023;
      const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
      return bits >> 15 ? -size : size;
    });
  };
  const runs = data.runs.map((run) => ({
    ...run, patches: floats(run.patches), regions: floats(run.regions), texts: floats(run.texts),
  }));
  let first = 0;
  // For each image, the row of its first box in `regions`.
  const firstRegion = data.images.map((image) => (first += image.boxes.length) - image.boxes.length);

  // For each row of `regions`, its image and its box.
  const placeOf = data.images.flatMap((image, p) => image.boxes.map((_, b) => [p, b]));

  const state = { image: 0, words: menus.map(() => -1), phrase: 0 };
  const element = (name, attributes = {}, text = "") => {
    const made = document.createElementNS(["svg", "rect", "circle", "text"].includes(name)
      ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;  // textContent: a caption is never parsed as markup
    return made;
  };

  // Rows of all phrases with the chosen words; a menu set to "any" matches all of its words.
  const matching = () => {
    if (!menus.length) return [state.phrase];
    let rows = [0];
    menus.forEach(([, words], m) => {
      const chosen = state.words[m] < 0 ? words.map((_, i) => i) : [state.words[m]];
      rows = rows.flatMap((row) => chosen.map((i) => row * words.length + i));
    });
    return rows;
  };
  const vector = (run, rows) => {
    const mean = new Float32Array(run.width);
    for (const row of rows) for (let i = 0; i < run.width; i++) mean[i] += run.texts[row * run.width + i];
    const length = rows.length > 1 ? Math.hypot(...mean) : 1;
    return mean.map((value) => value / (length || 1));
  };
  const products = (rows, width, query) => Float32Array.from({ length: rows.length / width }, (_, r) => {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += rows[r * width + i] * query[i];
    return sum;
  });

  // Darkens the patches: fully at the median of all images (low), not at all at the brightest patch (high).
  const paint = (canvas, heat, grid, low, high) => {
    canvas.width = canvas.height = grid;
    const context = canvas.getContext("2d");
    const image = context.createImageData(grid, grid);
    heat.forEach((value, i) => {
      const light = Math.min(1, Math.max(0, (value - low) / (high - low || 1)));
      image.data.set([12, 10, 16, Math.round(200 * (1 - light))], 4 * i);
    });
    context.putImageData(image, 0, 0);
  };

  const said = () => menus.length
    ? (state.words.every((w) => w < 0) ? "anything"
      : menus.map(([name, words], m) => state.words[m] >= 0 ? words[state.words[m]] : name === "noun" ? "thing" : "")
        .filter(Boolean).join(" "))
    : data.phrases[state.phrase];

  const answer = (run) => {
    const query = vector(run, matching());
    const heat = products(run.patches, run.width, query), count = run.grid * run.grid;
    const sorted = Float32Array.from(heat).sort();
    const low = sorted[sorted.length >> 1], high = sorted[sorted.length - 1];
    const own = heat.subarray(state.image * count, (state.image + 1) * count);
    return { heat, own, low, high, count, scores: products(run.regions, run.width, query) };
  };

  const drawView = (view, run, found) => {
    const image = data.images[state.image];
    paint(view.canvas, found.own, run.grid, found.low, found.high);
    view.image.src = image.source;
    view.image.width = image.width; view.image.height = image.height;
    view.image.alt = `Image ${image.name}`;
    const hot = found.own.indexOf(Math.max(...found.own));
    const x = ((hot % run.grid) + 0.5) / run.grid, y = (Math.floor(hot / run.grid) + 0.5) / run.grid;
    const start = firstRegion[state.image];
    const own = ranked(found.scores.subarray(start, start + image.boxes.length), run.scale);
    drawBoxes(view, image, own.map(({ row }) => row), x, y);
    view.ranks.replaceChildren(...own.map((rank) => rankLine(state.image, rank.row, rank)));
    const best = ranked(found.scores, run.scale).slice(0, 5);
    view.best.replaceChildren(...best.map((rank) => rankLine(...placeOf[rank.row], rank, true)));
    const holding = image.boxes.findIndex(({ box }) => box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3]);
    view.status.textContent = (holding < 0 ? "The brightest patch lies in none of the boxes"
      : `The brightest patch lies in box ${holding + 1}`) + ` (cosine ${number(found.own[hot])}).`;
  };

  const drawBoxes = (view, image, order, x, y) => {
    const { width, height } = image;
    view.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const shapes = order.toReversed().flatMap((b) => {
      const [x0, y0, x1, y1] = image.boxes[b].box;
      const place = { x: x0 * width, y: y0 * height, width: (x1 - x0) * width, height: (y1 - y0) * height };
      const label = element("text", { x: place.x + 4 * width / 288, y: place.y + 14 * width / 288, style: `font-size:${12 * width / 288}px;stroke-width:${3 * width / 288}px` }, String(b + 1));
      return [element("rect", { ...place, class: "under" }), element("rect", { ...place, class: b === order[0] ? "first" : "other" }), label];
    });
    const ring = { cx: x * width, cy: y * height, r: 0.025 * width };
    view.svg.replaceChildren(...shapes, element("circle", { ...ring, class: "under" }), element("circle", ring));
  };

  // Sorts rows by score, the best first, and gives each its probability.
  const ranked = (scores, scale) => {
    const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
    const powers = order.map((row) => Math.exp(scale * (scores[row] - scores[order[0]])));
    const total = powers.reduce((a, b) => a + b, 0);
    return order.map((row, place) => ({ row, score: scores[row], share: powers[place] / total }));
  };

  // A line of a ranking. A click asks for the text of the box, or with `goes` shows the image of the box.
  const rankLine = (p, b, rank, goes = false) => {
    const box = data.images[p].boxes[b];
    const line = element("li", { style: `--share:${rank.share.toFixed(4)}` });
    const act = element("button", { type: "button", class: "caption", title: goes ? "Show this image" : "Ask for this phrase" });
    act.append(element("bdi", {}, box.text));
    act.addEventListener("click", () => goes ? go(p) : choose(box.ask));
    act.disabled = !goes && !askable(box);
    const place = goes ? `Image ${p + 1}, box ${b + 1}` : `Box ${b + 1}`;
    line.append(cut(data.images[p], box.box, place), act);
    if (!goes) act.prepend(element("span", { class: "number" }, `${b + 1} `));
    if (box.unseen) line.append(element("span", { class: "tag unseen" }, "unseen"));
    line.append(element("span", { class: "share", title: "cosine" }, number(rank.score)));
    return line;
  };
  const number = (value) => value.toFixed(2).replace("-", "\u2212");

  // A thumbnail of the inside of a box.
  const cut = (image, [x0, y0, x1, y1], name) => {
    const part = (low, high) => [100 / (high - low), high - low < 1 ? 100 * low / (1 - (high - low)) : 0];
    const [[width, left], [height, top]] = [part(x0, x1), part(y0, y1)];
    const made = element("span", { class: "cut", role: "img", "aria-label": name, title: name });
    made.style.backgroundImage = `url("${image.source}")`;
    made.style.backgroundSize = `${width}% ${height}%`;
    made.style.backgroundPosition = `${left}% ${top}%`;
    return made;
  };
  const askable = (box) => box.ask !== null && box.ask !== undefined;

  const go = (p) => {
    state.image = p;
    document.querySelectorAll("#thumbs input")[p].checked = true;
    draw();
  };

  const choose = (ask) => {
    if (menus.length) state.words = [...ask]; else state.phrase = ask;
    controls.forEach((control) => control.show());
    draw();
  };

  const draw = () => {
    document.getElementById("asked").replaceChildren("Asked for: ", element("bdi", {}, said()));
    runs.forEach((run, r) => {
      const found = answer(run);
      drawView(views[r], run, found);
      if (r === 0) thumbs.forEach((canvas, p) =>
        paint(canvas, found.heat.subarray(p * found.count, (p + 1) * found.count), run.grid, found.low, found.high));
    });
  };

  const views = runs.map((run) => {
    const figure = element("figure", { class: "view" });
    const frame = element("div", { class: "frame" });
    const view = { image: element("img"), canvas: element("canvas", { "aria-hidden": "true" }), svg: element("svg", { "aria-hidden": "true" }),
      ranks: element("ol", { class: "ranks", "aria-label": "Boxes of this image, the best first" }),
      best: element("ol", { class: "ranks", "aria-label": "Best boxes of all images" }),
      status: element("p", { class: "quiet", "aria-live": "polite" }) };
    frame.append(view.image, view.canvas, view.svg);
    const side = element("div");
    side.append(view.status, element("h4", {}, "Boxes of this image, by cosine"), view.ranks,
      element("h4", {}, "Best boxes of all images"), view.best);
    if (runs.length > 1) figure.append(element("h3", {}, run.name));
    figure.append(frame, side);
    stage.append(figure);
    return view;
  });
  stage.classList.toggle("single", runs.length === 1);

  const thumbs = data.images.map((image, p) => {
    const label = element("label"), frame = element("span", { class: "frame" }), canvas = element("canvas", { "aria-hidden": "true" });
    const input = element("input", { type: "radio", name: "image", value: p });
    input.checked = p === 0;
    input.addEventListener("change", () => go(p));
    frame.style.display = "block";
    frame.append(element("img", { src: image.source, alt: `Image ${p + 1}: ${image.boxes.map((b) => b.text).join("; ")}` }), canvas);
    label.append(input, frame);
    document.getElementById("thumbs").append(label);
    return canvas;
  });

  const form = document.getElementById("ask");
  const menuControl = ([name, words], m) => {
    const label = element("label", {}, name), select = element("select", { name });
    select.append(...["any", ...words].map((word, i) => element("option", { value: i - 1 }, word)));
    select.addEventListener("change", () => { state.words[m] = Number(select.value); draw(); });
    label.append(select);
    form.append(label);
    return { show: () => { select.value = state.words[m]; } };
  };
  const searchControl = () => {
    const search = element("input", { type: "search", autocomplete: "off", name: "search" });
    const list = element("select", { size: 6, name: "phrase", "aria-label": "Phrases that contain these words" });
    const fill = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = data.phrases.map((text, i) => [text, i]).filter(([text]) => words.every((w) => text.toLowerCase().includes(w)));
      list.replaceChildren(...found.map(([text, i]) => element("option", { value: i }, text)));
      if (found.some(([, i]) => i === state.phrase)) list.value = state.phrase;
    };
    const label = element("label", {}, `Search the ${data.phrases.length} phrases of the validation set`);
    label.append(search);
    search.addEventListener("input", fill);
    list.addEventListener("change", () => { state.phrase = Number(list.value); draw(); });
    form.classList.add("search");
    form.append(label, list);
    return { show: () => { search.value = ""; fill(); } };
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  const controls = menus.length ? menus.map(menuControl) : [searchControl()];
  const opening = data.images[0].boxes.find(askable);
  if (opening && menus.length) state.words = [...opening.ask]; else if (opening) state.phrase = opening.ask;
  controls.forEach((control) => control.show());
  draw();
})();
