// The live map. It draws the pictures that the console sends as Server-Sent Events. Between two pictures, entities
// continue to move with their velocity.
"use strict";

const CELL_MM = 32000;
const ZONES = ["#4aa3a2", "#9a78c8", "#c0894a", "#6a9a4d", "#c86a86", "#5b82c8"];
const AVATAR = 1;
const CREATURE = 2;
const CREATURES = { 1: "rabbit", 2: "boar", 3: "wolf" };
const ITEMS = { 1: "apple", 2: "hide", 3: "fang", 4: "sword", 5: "shield", 6: "lantern" };
const REACH_PX = 12;

const canvas = document.getElementById("map");
const pen = canvas.getContext("2d");
const tip = document.getElementById("tip");
const figures = document.getElementById("figures");
const legend = document.getElementById("legend");
const spaces = document.getElementById("spaces");
const lost = document.getElementById("lost");
const form = { who: document.getElementById("who"), x: document.getElementById("x"), y: document.getElementById("y") };

let picture = null;
let arrived = 0;
// The position in the middle of the canvas (mm) and the scale (pixels per mm). Null: the whole map is visible.
let view = null;
let pointer = null;
let drag = null;
let chosen = null;
// The names that this frame has drawn.
let labels = [];

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function fitting() {
  const margin = 24;
  const scale = Math.min((canvas.clientWidth - margin) / picture.width, (canvas.clientHeight - margin) / picture.height);
  return { x: picture.width / 2, y: picture.height / 2, scale };
}

function current() {
  return view ?? fitting();
}

function toScreen(at, x, y) {
  return [(x - at.x) * at.scale + canvas.clientWidth / 2, (y - at.y) * at.scale + canvas.clientHeight / 2];
}

function toMap(at, x, y) {
  return [(x - canvas.clientWidth / 2) / at.scale + at.x, (y - canvas.clientHeight / 2) / at.scale + at.y];
}

// The position of an entity now, extrapolated for at most one second.
function place([, , , , x, y, vx, vy], now) {
  const seconds = Math.min((now - arrived) / 1000, 1);
  return [x + vx * seconds, y + vy * seconds];
}

function nameOf([, kind, template, name]) {
  if (name !== "") {
    return name;
  }
  return (kind === CREATURE ? CREATURES[template] : ITEMS[template]) ?? `template ${template}`;
}

function drawSectors(at) {
  picture.zones.forEach((zone, number) => {
    for (const [x0, y0, x1, y1] of zone.sectors) {
      const [left, top] = toScreen(at, x0 * CELL_MM, y0 * CELL_MM);
      const [right, bottom] = toScreen(at, x1 * CELL_MM, y1 * CELL_MM);
      pen.globalAlpha = 0.18;
      pen.fillStyle = ZONES[number % ZONES.length];
      pen.fillRect(left, top, right - left, bottom - top);
      pen.globalAlpha = 0.8;
      pen.strokeStyle = ZONES[number % ZONES.length];
      pen.lineWidth = 1.5;
      pen.strokeRect(left, top, right - left, bottom - top);
    }
  });
  pen.globalAlpha = 1;
}

function drawCells(at) {
  if (CELL_MM * at.scale < 12) {
    return;
  }
  pen.strokeStyle = style("--faint");
  pen.globalAlpha = 0.25;
  pen.lineWidth = 0.5;
  pen.beginPath();
  for (let x = 0; x <= picture.width; x += CELL_MM) {
    const [[left, top], [, bottom]] = [toScreen(at, x, 0), toScreen(at, x, picture.height)];
    pen.moveTo(left, top);
    pen.lineTo(left, bottom);
  }
  for (let y = 0; y <= picture.height; y += CELL_MM) {
    const [[left, top], [right]] = [toScreen(at, 0, y), toScreen(at, picture.width, y)];
    pen.moveTo(left, top);
    pen.lineTo(right, top);
  }
  pen.stroke();
  pen.globalAlpha = 1;
}

function drawEntity(at, entity, now) {
  const [id, kind, , , , , , , health, most] = entity;
  const [x, y] = toScreen(at, ...place(entity, now));
  if (x < -20 || y < -20 || x > canvas.clientWidth + 20 || y > canvas.clientHeight + 20) {
    return;
  }
  const size = Math.max(3, Math.min(7, at.scale * 1500));
  if (kind === AVATAR || kind === CREATURE) {
    pen.fillStyle = kind === AVATAR ? "#2f8cff" : "#d9822b";
    pen.globalAlpha = most > 0 && health === 0 ? 0.35 : 1;
    pen.beginPath();
    pen.arc(x, y, kind === AVATAR ? size + 1 : size, 0, 2 * Math.PI);
    pen.fill();
    pen.globalAlpha = 1;
  } else {
    pen.fillStyle = "#b59d2a";
    pen.save();
    pen.translate(x, y);
    pen.rotate(Math.PI / 4);
    pen.fillRect(-size / 2, -size / 2, size, size);
    pen.restore();
  }
  if (id === chosen) {
    pen.strokeStyle = style("--text");
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, size + 6, 0, 2 * Math.PI);
    pen.stroke();
  }
  if (kind === AVATAR && at.scale > 0.0015) {
    drawName(nameOf(entity), x, y - size - 5);
  }
}

// A name that would cover another one is not drawn. The tip of a player always shows the name.
function drawName(name, x, y) {
  const half = pen.measureText(name).width / 2;
  if (labels.some((other) => Math.abs(other.x - x) < other.half + half + 2 && Math.abs(other.y - y) < 13)) {
    return;
  }
  labels.push({ x, y, half });
  pen.lineWidth = 3;
  pen.strokeStyle = style("--sunken");
  pen.strokeText(name, x, y);
  pen.fillStyle = style("--text");
  pen.fillText(name, x, y);
}

function nearest(at, now) {
  let found = null;
  let closest = REACH_PX;
  for (const entity of picture.entities) {
    const [x, y] = toScreen(at, ...place(entity, now));
    // Players are drawn above other entities, so they are preferred.
    const distance = Math.hypot(x - pointer.x, y - pointer.y) - (entity[1] === AVATAR ? 3 : 0);
    if (distance < closest) {
      closest = distance;
      found = entity;
    }
  }
  return found;
}

function showTip(at, now) {
  const over = pointer && !drag ? nearest(at, now) : null;
  tip.hidden = over === null;
  if (over === null) {
    return;
  }
  const [, , , , x, y, , , health, most, zone] = over;
  const life = most > 0 ? `\nhealth ${health} of ${most}` : "";
  tip.textContent = `${nameOf(over)}${life}\n${(x / 1000).toFixed(1)} m, ${(y / 1000).toFixed(1)} m\n${picture.zones[zone]?.name ?? ""}`;
  tip.style.left = `${Math.min(pointer.x + 14, canvas.clientWidth - 160)}px`;
  tip.style.top = `${Math.min(pointer.y + 14, canvas.clientHeight - 80)}px`;
}

function draw(now) {
  requestAnimationFrame(draw);
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) {
    [canvas.width, canvas.height] = [width, height];
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  if (picture === null || !picture.width) {
    return;
  }
  const at = current();
  drawSectors(at);
  drawCells(at);
  labels = [];
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "center";
  for (const kind of [3, CREATURE, AVATAR]) {
    for (const entity of picture.entities) {
      if (entity[1] === kind) {
        drawEntity(at, entity, now);
      }
    }
  }
  showTip(at, now);
}

function tell() {
  const count = (kind) => picture.entities.filter((entity) => entity[1] === kind).length;
  const more = picture.left_out > 0 ? ` ${picture.left_out} more are not shown.` : "";
  figures.textContent = `${count(AVATAR)} players, ${count(CREATURE)} creatures, ${count(3)} items on the ground.${more}`;
  const zones = picture.zones.map((zone, number) => {
    const line = document.createElement("li");
    const colour = document.createElement("i");
    colour.className = `zone-${number % ZONES.length}`;
    line.append(colour, zone.name);
    return line;
  });
  legend.replaceChildren(...zones);
  const links = picture.spaces.map((space) => {
    const link = document.createElement("a");
    link.className = "button";
    link.href = `/map?world=${canvas.dataset.world}&space=${space}`;
    link.textContent = `Space ${space}`;
    if (String(space) === canvas.dataset.space) {
      link.setAttribute("aria-current", "page");
    }
    return link;
  });
  spaces.hidden = links.length < 2;
  spaces.replaceChildren(...links);
}

function zoom(factor, x, y) {
  const at = current();
  const [mapX, mapY] = toMap(at, x, y);
  const scale = Math.max(fitting().scale / 2, Math.min(0.05, at.scale * factor));
  view = {
    x: mapX - (x - canvas.clientWidth / 2) / scale,
    y: mapY - (y - canvas.clientHeight / 2) / scale,
    scale,
  };
}

function move(dx, dy) {
  const at = current();
  view = { x: at.x + dx / at.scale, y: at.y + dy / at.scale, scale: at.scale };
}

function choose(x, y) {
  const at = current();
  pointer = { x, y };
  const entity = nearest(at, performance.now());
  if (entity !== null && entity[1] === AVATAR) {
    chosen = entity[0];
    if (form.who) {
      form.who.value = nameOf(entity);
    }
  } else if (form.x) {
    const [mapX, mapY] = toMap(at, x, y);
    form.x.value = (Math.max(0, mapX) / 1000).toFixed(1);
    form.y.value = (Math.max(0, mapY) / 1000).toFixed(1);
  }
}

// Two fingers zoom around the point between them.
const fingers = new Map();

function pinch(event) {
  const [first, second] = fingers.values();
  const before = Math.hypot(first.x - second.x, first.y - second.y);
  fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
  const [one, two] = fingers.values();
  const after = Math.hypot(one.x - two.x, one.y - two.y);
  if (picture && before > 0 && after > 0) {
    zoom(after / before, (one.x + two.x) / 2, (one.y + two.y) / 2);
  }
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
  if (fingers.size > 1) {
    drag = null;
    return;
  }
  drag = { x: event.offsetX, y: event.offsetY, moved: false };
});
canvas.addEventListener("pointermove", (event) => {
  if (fingers.size === 2 && fingers.has(event.pointerId)) {
    pinch(event);
    return;
  }
  pointer = { x: event.offsetX, y: event.offsetY };
  if (drag && picture) {
    const [dx, dy] = [drag.x - event.offsetX, drag.y - event.offsetY];
    if (drag.moved || Math.hypot(dx, dy) > 4) {
      move(dx, dy);
      drag = { x: event.offsetX, y: event.offsetY, moved: true };
    }
  }
});
for (const ended of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(ended, (event) => fingers.delete(event.pointerId));
}
canvas.addEventListener("pointerup", (event) => {
  if (drag && !drag.moved && picture) {
    choose(event.offsetX, event.offsetY);
  }
  drag = null;
});
canvas.addEventListener("pointerleave", () => {
  pointer = null;
});
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (picture) {
    zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const [x, y] = [canvas.clientWidth / 2, canvas.clientHeight / 2];
  const keys = {
    ArrowLeft: () => move(-60, 0),
    ArrowRight: () => move(60, 0),
    ArrowUp: () => move(0, -60),
    ArrowDown: () => move(0, 60),
    "+": () => zoom(1.3, x, y),
    "-": () => zoom(1 / 1.3, x, y),
    0: () => {
      view = null;
    },
  };
  if (picture && keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});

const pictures = new EventSource(`/map/events?world=${canvas.dataset.world}&space=${canvas.dataset.space}`);
pictures.addEventListener("message", (event) => {
  picture = JSON.parse(event.data);
  arrived = performance.now();
  lost.hidden = true;
  tell();
});
pictures.addEventListener("error", () => {
  lost.hidden = false;
  if (pictures.readyState === EventSource.CLOSED) {
    // The console has refused the stream, probably because the session has ended.
    setTimeout(() => location.reload(), 5000);
  }
});
requestAnimationFrame(draw);
