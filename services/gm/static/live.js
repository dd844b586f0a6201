// Keeps pages fresh: every few seconds the page is fetched again and its parts marked `data-live` are replaced,
// except those somebody is working in. Without scripts the page is just not fresh.
"use strict";

const EVERY_MS = 3000;

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (!Number.isNaN(moment.getTime())) {
      time.textContent = moment.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
      time.title = time.dateTime;
    }
  }
}

function busy(part) {
  return part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
}

async function refresh() {
  if (document.hidden) {
    return;
  }
  const answer = await fetch(location.href, { headers: { "x-live": "1" }, redirect: "manual" });
  if (answer.type === "opaqueredirect") {
    // The session is over.
    location.reload();
    return;
  }
  if (!answer.ok) {
    return;
  }
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (next !== null && !busy(part)) {
      localTimes(next);
      part.replaceWith(document.importNode(next, true));
    }
  }
}

localTimes(document);
if (document.querySelector("[data-live]") !== null) {
  setInterval(() => refresh().catch(() => {}), EVERY_MS);
}
