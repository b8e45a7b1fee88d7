// What the page does beyond plain links and forms; without it everything still works, by loading pages.
"use strict";
(() => {
  const texts = document.body.dataset;
  const language = document.documentElement.lang;
  const byId = (id) => document.getElementById(id);
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "always" });
  const SOON = 250;
  const EVERY = 3000;
  const SLOWEST = 60000;

  // "3 minutes ago", kept right while the page is open.
  const inWords = (moment) => {
    const seconds = Math.round((new Date(moment) - Date.now()) / 1000);
    for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]) {
      const count = Math.trunc(seconds / length);
      if (count) return relative.format(count, unit);
    }
    return texts.justNow;
  };
  const tellTimes = () => {
    for (const ago of document.querySelectorAll(".ago")) {
      const moment = ago.dataset.at || ago.previousElementSibling?.dateTime;
      if (moment) ago.textContent = inWords(moment);
    }
  };

  let toastTimer;
  const toast = (text) => {
    byId("toast").textContent = text;
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => { byId("toast").textContent = ""; }, 4000);
  };

  const parse = (html) => new DOMParser().parseFromString(html, "text/html");
  // Puts a part of a newer page in place of the same part here. The focus stays where it was.
  const swap = (page, id) => {
    const there = page.getElementById(id);
    const here = byId(id);
    if (!there || !here || here.isEqualNode(there)) return;
    const open = [...here.querySelectorAll("details[open]")].length;
    const focused = here.contains(document.activeElement) ? document.activeElement : null;
    if (open || (focused && focused.matches("input, select"))) return;
    const name = focused && (focused.id || focused.textContent);
    here.replaceWith(there);
    if (!focused) return;
    [...there.querySelectorAll("a, button")].find((one) => one.id === name || one.textContent === name)?.focus();
  };

  // Rows by their ids: new ones come on top, changed ones are replaced, older pages below stay.
  const mergeRows = (page, id) => {
    const here = byId(id);
    const there = [...page.getElementById(id).children];
    const known = new Map([...here.children].map((row) => [row.dataset.id, row]));
    const newest = Math.max(0, ...[...known.keys()].map(Number));
    const oldest = page.getElementById("more") ? Number(there.at(-1).dataset.id) : 0;
    const focused = document.activeElement?.id;
    let fresh = 0;
    let before = here.firstElementChild;
    for (const row of there) {
      const old = known.get(row.dataset.id);
      known.delete(row.dataset.id);
      if (old) {
        before = old.nextElementSibling;
        if (old.dataset.state !== row.dataset.state) old.replaceWith(row);
      } else {
        here.insertBefore(row, before);
        row.classList.add("is-new");
        fresh += Number(row.dataset.id) > newest;
      }
    }
    for (const [number, row] of known) if (Number(number) >= oldest) row.remove();
    here.closest("table").hidden = !here.children.length;
    byId("none").hidden = here.children.length > 0;
    if (!byId("more") && page.getElementById("more") && here.children.length === there.length) {
      byId("list").insertBefore(page.getElementById("more").parentElement, byId("none"));
    }
    if (focused && focused !== document.activeElement?.id) byId(focused)?.focus();
    if (fresh) toast((fresh === 1 ? texts.oneNew : texts.someNew).replace("#", fresh));
  };

  const show = (box, state) => {
    box.setAttribute("aria-checked", { on: "true", covered: "true", mixed: "mixed" }[state] || "false");
    box.value = `${state === "on" ? "off" : "on"}|${box.dataset.key}`;
  };
  const mergeBoxes = (page, id) => {
    for (const there of page.querySelectorAll(`#${id} .box[data-key]`)) {
      const here = document.querySelector(`.box[data-key="${CSS.escape(there.dataset.key)}"]`);
      if (here && !here.hasAttribute("aria-busy")) {
        here.setAttribute("aria-checked", there.getAttribute("aria-checked"));
        here.value = there.value;
      }
    }
    byId("count").textContent = page.getElementById("count").textContent;
  };

  // News: asked for while somebody looks, after a quarter of a second, and then ever more seldom, down to every three
  // seconds; news begin it anew. While there are none the answer is an empty 204.
  let wait = SOON;
  let ticked = 0; // news that were asked for before a tick was answered are of before it
  const askForNews = async () => {
    const live = document.querySelector("[data-live-from]");
    if (!live) return;
    if (document.visibilityState === "visible") {
      const before = ticked;
      try {
        const answer = await fetch(live.dataset.liveFrom, { headers: { "x-unless-version": live.dataset.live } });
        if (answer.status === 404) location.reload();
        else if (!answer.ok) throw new Error(answer.statusText);
        else if (answer.status === 204) wait = Math.min(wait * 1.25, EVERY);
        else {
          const page = parse(await answer.text());
          if (live.isConnected && ticked === before) takeNews(page, live);
          wait = SOON;
        }
        byId("offline").textContent = "";
      } catch {
        byId("offline").textContent = texts.notLive;
        wait = Math.min(Math.max(wait, EVERY) * 2, SLOWEST);
      }
    }
    setTimeout(askForNews, wait);
  };
  // The strip costs more the more there is to count, so it comes by itself, and not with each piece of news.
  const STRIP_EVERY = 15000;
  let stripAt = -STRIP_EVERY;
  const loadStrip = async (address) => {
    if (performance.now() - stripAt < STRIP_EVERY) return;
    stripAt = performance.now();
    const answer = await fetch(address);
    if (!answer.ok) return;
    swap(parse(await answer.text()), "strip");
    byId("strip").dataset.load = address;
  };
  const takeNews = (page, live) => {
    const newer = page.querySelector("[data-live-from]");
    for (const id of live.dataset.liveParts.split(" ")) swap(page, id);
    if (live.dataset.liveRows) mergeRows(page, live.dataset.liveRows);
    if (live.dataset.liveBoxes) mergeBoxes(page, live.dataset.liveBoxes);
    live.dataset.live = newer.dataset.live;
    const strip = byId("strip");
    if (strip) loadStrip(strip.dataset.load).catch(() => {});
    tellTimes();
    findCopyButtons();
  };

  // A tick is in force at once, and shown when the answer says so. One follows the other, so that the last answer tells
  // how all boxes are.
  let ticks = Promise.resolve();
  let savedTimer;
  const tick = async (box) => {
    const form = box.form;
    const status = byId("tick-status");
    const body = new URLSearchParams({ token: form.elements.token.value, tick: box.value });
    try {
      const answer = await fetch(form.action, { method: "POST", body, headers: { accept: "application/json" } });
      const told = await answer.json().catch(() => ({}));
      if (!told.states) throw new Error(told.error || texts.notLive);
      if (box.hasAttribute("data-reload")) { location.reload(); return; }
      for (const each of form.querySelectorAll(".box[data-key]")) show(each, told.states[each.dataset.key] || "off");
      byId("count").textContent = told.count;
      status.className = "";
      clearTimeout(savedTimer);
      savedTimer = setTimeout(() => { status.textContent = ""; }, 6000);
      status.textContent = `✓ ${texts.saved}: ${box.getAttribute("aria-label")}`;
    } catch (error) {
      clearTimeout(savedTimer);
      status.className = "wrong";
      status.textContent = `${texts.notSaved}: ${box.getAttribute("aria-label")}. ${error instanceof TypeError ? texts.notLive : error.message}`;
    } finally {
      box.removeAttribute("aria-busy");
      ticked += 1;
    }
  };

  const filterGrid = () => {
    const sought = byId("q").value.trim().toLowerCase();
    let any = false;
    for (const body of document.querySelectorAll(".grid tbody")) {
      let some = false;
      for (const row of body.querySelectorAll("[data-name]")) {
        row.hidden = !row.dataset.name.includes(sought);
        some ||= !row.hidden;
      }
      body.hidden = !some;
      any ||= some;
    }
    const address = new URL(location);
    if (sought) address.searchParams.set("q", byId("q").value.trim());
    else address.searchParams.delete("q");
    history.replaceState(null, "", address);
    const grid = document.querySelector(".grid");
    if (!grid) return;
    grid.hidden = !any;
    byId("no-such").hidden = any;
  };

  const loadMore = async (link) => {
    const page = parse(await (await fetch(link.href)).text());
    const first = page.querySelector("#rows > tr .cover")?.id;
    byId("rows").append(...page.getElementById("rows").children);
    const next = page.getElementById("more");
    if (next) link.replaceWith(next); else link.parentElement.remove();
    tellTimes();
    if (first) byId(first).focus({ preventScroll: true });
  };

  const swapTab = async (link) => {
    const page = parse(await (await fetch(link.href)).text());
    swap(page, link.dataset.swap);
    const live = document.querySelector("[data-live-from]");
    live.replaceWith(page.querySelector("[data-live-from]"));
    for (const one of document.querySelectorAll(".timeline a")) {
      one.href = page.getElementById(one.id)?.href || one.href;
    }
    history.replaceState(null, "", link.href);
    findCopyButtons();
  };

  const findCopyButtons = () => {
    if (!navigator.clipboard) return;
    for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
  };

  document.addEventListener("click", async (event) => {
    const target = event.target.closest("button, a");
    if (!target || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    if (target.matches(".box[name=tick]")) {
      event.preventDefault();
      target.setAttribute("aria-busy", "true");
      ticks = ticks.then(() => tick(target));
    } else if (target.dataset.copy) {
      await navigator.clipboard.writeText(byId(target.dataset.copy).textContent);
      toast(texts.copied);
    } else if (target.id === "more") {
      event.preventDefault();
      loadMore(target).catch(() => { location = target.href; });
    } else if (target.dataset.swap) {
      event.preventDefault();
      swapTab(target).catch(() => { location = target.href; });
    }
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.hasAttribute("data-sent")) { event.preventDefault(); return; }
    if (form.method === "post") {
      form.setAttribute("data-sent", "");
      setTimeout(() => form.removeAttribute("data-sent"), 15000); // somebody may have stopped it
    }
    const button = form.querySelector(".primary");
    if (form.dataset.busy && button) {
      button.textContent = form.dataset.busy;
      button.setAttribute("aria-disabled", "true");
    }
  });
  // A page that comes back from the browser's memory was sent before, and may be sent again.
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("[data-sent]")) form.removeAttribute("data-sent");
  });
  // What was done is told once: a reload, or a link that somebody passes on, does not tell it again.
  const here = new URL(location);
  if (here.searchParams.has("done")) {
    here.searchParams.delete("done");
    here.searchParams.delete("count");
    history.replaceState(null, "", here);
  }
  if (byId("q")) {
    byId("q").addEventListener("input", filterGrid);
    byId("q").form.addEventListener("submit", (event) => event.preventDefault());
    filterGrid(); // what was typed before this script came, or what the browser put back
  }
  for (const box of document.querySelectorAll("#filters [type=checkbox], #filters select")) {
    box.addEventListener("change", () => box.form.requestSubmit());
  }

  if (byId("strip")?.dataset.load) loadStrip(byId("strip").dataset.load).catch(() => {});
  tellTimes();
  setInterval(tellTimes, 15000);
  findCopyButtons();
  setTimeout(askForNews, wait);
})();
