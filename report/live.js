"use strict";
// The page refreshes itself, and its rows are fetched a page at a time. All text goes in as text, never as HTML.
(function () {
  var browse = document.getElementById("browse"), list = document.getElementById("rows"), said = document.getElementById("said");
  var base = browse.dataset.base, kind = "pairs", page = 0, tag = "", timer = 0, asked = 0, pages = 1;
  function el(name, cls, text) {
    var e = document.createElement(name);
    if (cls) e.className = cls;
    if (text !== undefined) e.textContent = text;
    return e;
  }
  function box(label, text, cls) {
    var d = el("div", cls || "");
    d.append(el("div", "label", label), el("div", "text", text));
    return d;
  }
  function card(r) {
    var c = el("div", "card"), head = el("div", "ask", r.prompt);
    c.append(head);
    if (r.drop) c.append(el("div", "drop", "dropped: " + r.drop));
    if (kind === "pairs") {
      var s = el("div", "side");
      s.append(box("chosen (teacher)", r.chosen || "", "own"), box("rejected (student)", r.rejected || ""));
      c.append(s);
    } else if (r.turns) {
      r.turns.forEach(function (t, i) { c.append(box(t.Speaker, t.Text, i % 2 ? "turn b" : "turn")); });
    } else c.append(el("div", "text", r.text || ""));
    c.append(el("div", "label", r.id));
    return c;
  }
  function rows() {
    var mine = ++asked, drop = document.getElementById("drop"), q = document.getElementById("q").value;
    var url = base + "/rows?kind=" + kind + "&page=" + page + "&drop=" + encodeURIComponent(drop.value) + "&q=" + encodeURIComponent(q);
    return fetch(url).then(function (a) {
      if (!a.ok) return a.text().then(function (t) { throw new Error(t); });
      return a.json();
    }).then(function (d) {
      if (mine !== asked) return; // a newer question is on its way
      pages = Math.max(1, Math.ceil(d.matching / d.size));
      list.replaceChildren.apply(list, d.rows.map(card));
      said.textContent = d.matching + " of " + d.total + " rows, page " + (d.page + 1) + " of " + pages;
      var was = drop.value;
      drop.replaceChildren.apply(drop, [["", "all rows"], ["kept", "kept"], ["dropped", "all dropped"]].map(function (o) {
        var e = el("option", "", o[1]); e.value = o[0]; return e;
      }).concat(d.reasons.map(function (r) { var e = el("option", "", r.reason + " (" + r.rows + ")"); e.value = "=" + r.reason; return e; })));
      drop.value = was;
      if (drop.value !== was) drop.value = "";
    }).catch(function (e) { if (mine === asked) said.textContent = "The rows cannot be read now: " + e.message; });
  }
  function choose(k) {
    kind = k; page = 0; document.getElementById("drop").value = "";
    document.querySelectorAll("#browse [data-kind]").forEach(function (b) { b.setAttribute("aria-pressed", String(b.dataset.kind === k)); });
    rows();
  }
  document.querySelectorAll("#browse [data-kind]").forEach(function (b) { b.addEventListener("click", function () { choose(b.dataset.kind); }); });
  document.getElementById("drop").addEventListener("change", function () { page = 0; rows(); });
  document.getElementById("q").addEventListener("input", function () { clearTimeout(timer); timer = setTimeout(function () { page = 0; rows(); }, 200); });
  document.getElementById("back").addEventListener("click", function () { if (page > 0) { page--; rows(); } });
  document.getElementById("on").addEventListener("click", function () { if (page + 1 < pages) { page++; rows(); } });
  function parts(doc) { return Array.prototype.filter.call(doc.body.children, function (e) { return (e.tagName === "SECTION" || e.tagName === "HEADER") && e.id !== "browse"; }); }
  function fresh() {
    if (document.hidden) return Promise.resolve();
    return fetch(base, { headers: tag ? { "If-None-Match": tag } : {} }).then(function (a) {
      if (a.status !== 200) return;
      tag = a.headers.get("ETag") || "";
      return a.text().then(function (t) {
        var now = parts(document), next = parts(new DOMParser().parseFromString(t, "text/html"));
        next.forEach(function (n, i) {
          var o = now[i];
          if (!o) { browse.before(document.adoptNode(n)); return; }
          o.querySelectorAll("details").forEach(function (d, k) { var m = n.querySelectorAll("details")[k]; if (m) m.open = d.open; });
          if (o.innerHTML !== n.innerHTML) o.replaceWith(document.adoptNode(n));
        });
        now.slice(next.length).forEach(function (o) { o.remove(); });
        if (page === 0 && window.getSelection().isCollapsed) return rows();
      });
    }).catch(function () { /* the server is away for a moment: the next turn asks again */ });
  }
  setInterval(fresh, 3000);
  choose("pairs");
})();
