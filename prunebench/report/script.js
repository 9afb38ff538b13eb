"use strict";
(() => {
  const PAGE = 100; // rows in the document at a time: sorting 20,000 must not rebuild 20,000
  const UNITS = {
    ns: 1e-9, us: 1e-6, "µs": 1e-6, "μs": 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600,
    B: 1, bytes: 1, kB: 1e3, MB: 1e6, GB: 1e9, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30,
  };
  const DIGITS = "[-−+]?(?:\\d[\\d,]*(?:\\.\\d+)?|\\.\\d+)(?:e[-+]?\\d+)?";
  // 2026-11-22, 3.11.7 and 4x4 are no numbers; `~0.1`, `below 70 %` and `12 µs` are.
  const LEADING = new RegExp(`^(?:below |above )?[~<>≈]?\\s*(${DIGITS})(?=$|[\\s×%,;:()])(?:\\s*([A-Za-zµμ]+))?`, "i");
  const RATIO = new RegExp(`(${DIGITS})\\s*×`, "i");
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const said = document.getElementById("said");

  const toNumber = (text) => Number(text.replace(/,/g, "").replace("−", "-"));

  /** The number that a cell is sorted by, in its base unit; NaN where it has none. */
  function numberOf(text, by) {
    const found = (by === "×" ? RATIO : LEADING).exec(text);
    return found ? toNumber(found[1]) * (UNITS[found[2]] ?? 1) : NaN;
  }

  const isMissing = (text) => text === "" || text === "–";

  function element(name, text, kind) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function say(text) {
    said.textContent = text;
    clearTimeout(say.later);
    say.later = setTimeout(() => { said.textContent = ""; }, 4000);
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without leave for the clipboard: select a text and copy it the old way.
      const area = element("textarea", text);
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      if (!done) return say("The browser refused; select the command by hand");
    }
    return say("Copied: " + text);
  }

  function withCopy(box) {
    const button = element("button", "Copy", "copy");
    button.type = "button";
    button.setAttribute("aria-label", "Copy the command");
    box.prepend(button);
    return box;
  }

  function commandBox(text) {
    const box = element("div", undefined, "command");
    box.append(element("code", text));
    return withCopy(box);
  }

  /** A table taken over: its rows as texts, sorted, filtered and shown a page at a time. */
  class Grid {
    constructor(block) {
      this.body = block.querySelector("tbody");
      this.heads = [...block.querySelectorAll("th")];
      this.rows = [...this.body.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
      const rest = block.querySelector("script.rest");
      if (rest) this.rows = this.rows.concat(JSON.parse(rest.textContent));
      this.columns = this.heads.map((head, place) => this.column(head, place));
      this.words = this.rows.map((row) => row.join("\n").toLowerCase());
      this.sorted = -1;
      this.direction = 1;
      this.page = 0;
      this.wanted = [];
      this.chosen = new Map();
      this.sortable();
      this.tools(block.querySelector(".scroll"));
      this.update();
    }

    column(head, place) {
      const by = head.dataset.by || "";
      const present = this.rows.filter((row) => !isMissing(row[place]));
      const found = present.filter((row) => !Number.isNaN(numberOf(row[place], by)));
      const command = "command" in head.dataset;
      return { by, command, number: !command && 2 * found.length > present.length, keys: null };
    }

    keysOf(place) {
      const column = this.columns[place];
      column.keys ??= this.rows.map((row) => (column.number ? numberOf(row[place], column.by) : NaN));
      return column.keys;
    }

    sortable() {
      this.heads.forEach((head, place) => {
        const button = element("button", head.textContent);
        button.type = "button";
        button.addEventListener("click", () => this.sort(place));
        head.replaceChildren(button);
      });
    }

    /** Ascending, descending, then as it was. */
    sort(place) {
      if (this.sorted !== place) [this.sorted, this.direction] = [place, 1];
      else if (this.direction === 1) this.direction = -1;
      else this.sorted = -1;
      this.heads.forEach((head, n) => {
        if (n === this.sorted) head.setAttribute("aria-sort", this.direction > 0 ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
      this.update();
    }

    tools(scroll) {
      this.bar = element("div", undefined, "tools");
      this.pages = element("div", undefined, "pages");
      this.count = element("span");
      this.count.setAttribute("role", "status");
      if (this.rows.length > 5) {
        const input = element("input");
        input.type = "search";
        input.placeholder = "all of these words";
        input.addEventListener("input", () => {
          clearTimeout(this.later);
          this.later = setTimeout(() => {
            this.wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
            this.update();
          }, this.rows.length > 2000 ? 150 : 0);
        });
        this.labelled("Filter", input);
        this.heads.forEach((head, place) => { if ("choose" in head.dataset) this.chooser(head, place); });
      }
      this.back = this.turner("Previous", -1);
      this.forth = this.turner("Next", 1);
      this.pages.append(this.count, this.back, this.forth);
      scroll.before(this.bar);
      scroll.after(this.pages);
      this.scroll = scroll;
    }

    labelled(text, input) {
      const label = element("label", text);
      label.append(input);
      this.bar.append(label);
    }

    chooser(head, place) {
      const values = [...new Set(this.rows.map((row) => row[place]))].sort(collator.compare);
      if (values.length < 2 || values.length > 60) return;
      const select = element("select");
      select.append(new Option("all", ""), ...values.map((value, n) => new Option(value || "(empty)", String(n))));
      select.addEventListener("change", () => {
        if (select.value === "") this.chosen.delete(place);
        else this.chosen.set(place, values[Number(select.value)]);
        this.update();
      });
      this.labelled(head.textContent, select);
    }

    turner(text, by) {
      const button = element("button", text);
      button.type = "button";
      button.addEventListener("click", () => {
        this.page += by;
        this.show();
        this.scroll.scrollTop = 0;
      });
      return button;
    }

    fits(n) {
      for (const [place, value] of this.chosen) if (this.rows[n][place] !== value) return false;
      return this.wanted.every((word) => this.words[n].includes(word));
    }

    update() {
      this.order = [...this.rows.keys()].filter((n) => this.fits(n));
      if (this.sorted >= 0) {
        const place = this.sorted, keys = this.keysOf(place);
        const rank = this.rows.map((row, n) => (isMissing(row[place]) ? 2 : Number.isNaN(keys[n]) ? 1 : 0));
        const by = [
          (a, b) => keys[a] - keys[b],
          (a, b) => collator.compare(this.rows[a][place], this.rows[b][place]),
          () => 0,
        ];
        // Numbers before words, what is missing last, whichever the direction.
        this.order.sort((a, b) => rank[a] - rank[b] || this.direction * by[rank[a]](a, b) || a - b);
      }
      this.page = 0;
      this.show();
    }

    show() {
      const all = this.order.length, from = this.page * PAGE, to = Math.min(all, from + PAGE);
      this.body.replaceChildren(...this.order.slice(from, to).map((n) => this.row(this.rows[n])));
      const of = all === this.rows.length ? all.toLocaleString("en") : `${all.toLocaleString("en")} of ${this.rows.length.toLocaleString("en")}`;
      this.count.textContent = all > PAGE ? `rows ${from + 1}–${to} of ${of}` : `${of} row${all === 1 && all === this.rows.length ? "" : "s"}`;
      this.back.hidden = this.forth.hidden = all <= PAGE;
      this.back.disabled = this.page === 0;
      this.forth.disabled = to >= all;
    }

    row(texts) {
      const row = element("tr");
      texts.forEach((text, place) => {
        const column = this.columns[place];
        const cell = element("td", column.command ? undefined : text);
        if (column.command && !isMissing(text)) {
          cell.className = "again";
          cell.append(commandBox(text));
        } else {
          cell.classList.toggle("number", column.number && text.length < 24);
          cell.classList.toggle("long", text.length >= 24);
          cell.classList.toggle("doubtful", /\b(inconclusive|unstable)\b/.test(text));
          cell.classList.toggle("failed", /^(diverged|oom|timeout|failed)\b/.test(text));
        }
        row.append(cell);
      });
      return row;
    }
  }

  function takeOver(block) {
    if (!block.dataset.ready) {
      block.dataset.ready = "yes";
      new Grid(block);
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.copy");
    if (button) copy(button.parentElement.querySelector("code").textContent);
  });
  for (const box of document.querySelectorAll(".command")) withCopy(box);
  for (const block of document.querySelectorAll(".block")) {
    if (!block.querySelector("table")) continue;
    const tucked = block.closest("details");
    // A tucked table is read when it is opened: the page must not wait for it.
    if (tucked && !tucked.open) tucked.addEventListener("toggle", () => takeOver(block), { once: true });
    else takeOver(block);
  }
})();
