// Updates a page in place from its stream. The stream sends rows that have changed. A row keeps its elements, so that
// selections, focus and open forms survive. Without scripts a page does not update itself.
"use strict";

const AGE_INTERVAL_MS = 1000;

function ageText(start) {
  const seconds = Math.max(0, Math.floor((Date.now() - start) / 1000));
  if (seconds < 60) {
    return `${seconds} s`;
  }
  if (seconds < 3600) {
    return `${Math.floor(seconds / 60)} min`;
  }
  if (seconds < 86400) {
    return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds / 60) % 60)} min`;
  }
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds / 3600) % 24)} h`;
}

function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

// Shows times in the time zone of the browser, and ages.
function localizeTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (!Number.isNaN(moment.getTime())) {
      const local = moment.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
      const isAge = time.hasAttribute("data-age");
      setText(time, isAge ? ageText(moment.getTime()) : local);
      time.title = isAge ? `since ${local}` : time.dateTime;
    }
  }
}

// Gives `old` the content of `next` and keeps the elements that are equal.
function morph(old, next) {
  // The console marks a cell that has not changed and leaves out its content.
  if (next.nodeType === Node.ELEMENT_NODE && next.hasAttribute("data-same")) {
    return;
  }
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName) {
    old.replaceWith(next);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) {
      old.data = next.data;
    }
    return;
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) {
      old.setAttribute(name, value);
    }
  }
  for (const { name } of [...old.attributes]) {
    // The browser sets `open` when the operator opens a form.
    if (!next.hasAttribute(name) && name !== "open") {
      old.removeAttribute(name);
    }
  }
  const [oldChildren, nextChildren] = [[...old.childNodes], [...next.childNodes]];
  nextChildren.forEach((child, index) => {
    if (index < oldChildren.length) {
      morph(oldChildren[index], child);
    } else {
      old.append(child);
    }
  });
  oldChildren.slice(nextChildren.length).forEach((child) => child.remove());
}

function parseRow(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const row = document.importNode(template.content.firstElementChild, true);
  localizeTimes(row);
  return row;
}

function isInUse(row) {
  return row.contains(document.activeElement) || row.querySelector("details[open]") !== null;
}

function applyChange({ part, keys, rows }) {
  const container = document.querySelector(`[data-live="${part}"]`);
  if (container === null) {
    return;
  }
  const present = new Map([...container.children].map((row) => [row.dataset.key, row]));
  for (const [key, html] of Object.entries(rows)) {
    const next = parseRow(html);
    const old = present.get(key);
    if (old === undefined) {
      present.set(key, next);
    } else {
      morph(old, next);
      old.classList.remove("gone");
    }
  }
  if (keys === null) {
    return;
  }
  const kept = new Set(keys);
  for (const [key, row] of present) {
    if (kept.has(key)) {
      row.classList.remove("gone");
    } else if (isInUse(row)) {
      // An operator uses a form of this row. It is removed with a later change.
      row.classList.add("gone");
    } else {
      row.remove();
    }
  }
  let at = container.firstElementChild;
  for (const key of keys) {
    while (at !== null && at.classList.contains("gone")) {
      at = at.nextElementSibling;
    }
    const row = present.get(key);
    if (row === at) {
      at = at.nextElementSibling;
    } else if (row !== undefined) {
      container.insertBefore(row, at);
    }
  }
}

function follow(url) {
  const stale = document.getElementById("stale");
  let stream = null;
  const open = () => {
    stream = new EventSource(url);
    stream.addEventListener("message", (event) => {
      stale.hidden = true;
      JSON.parse(event.data).forEach(applyChange);
    });
    stream.addEventListener("error", () => {
      // While the browser reconnects by itself the page is only a little old.
      stale.hidden = stream.readyState !== EventSource.CLOSED;
    });
  };
  document.addEventListener("visibilitychange", () => {
    stream?.close();
    stream = null;
    if (!document.hidden) {
      open();
    }
  });
  if (!document.hidden) {
    open();
  }
}

localizeTimes(document);
setInterval(() => {
  for (const time of document.querySelectorAll("time[data-age]")) {
    setText(time, ageText(new Date(time.dateTime).getTime()));
  }
}, AGE_INTERVAL_MS);
// On a narrow screen the navigation is one line that scrolls.
document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
const streamed = document.querySelector("main[data-stream]");
if (streamed !== null) {
  follow(streamed.dataset.stream);
}
