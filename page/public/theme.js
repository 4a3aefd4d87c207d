// Blocking and small on purpose: language and theme stand before the first paint. The same rules are in src/preferences.ts.
(function () {
  var root = document.documentElement;
  function kept(key) {
    try { return localStorage.getItem(key); } catch (refused) { return null; }
  }
  var languages = navigator.languages && navigator.languages.length ? navigator.languages : [navigator.language || "en"];
  var first = languages.filter(function (each) { return /^(fa|en)\b/i.test(each); })[0] || "en";
  var lang = kept("eyvan.lang") || first.slice(0, 2).toLowerCase();
  var theme = kept("eyvan.theme");
  if (/\/s\/widget$/.test(location.pathname)) { // in a client's frame: as the client is (MSC2873)
    var client = new URLSearchParams(location.hash.slice(1));
    var look = client.get("theme") || "", code = client.get("lang") || "";
    theme = /dark|black/i.test(look) ? "dark" : /light/i.test(look) ? "light" : null;
    if (/^[a-z]{2}/i.test(code)) lang = code.slice(0, 2).toLowerCase();
    root.dataset.form = "widget";
  }
  var dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.lang = lang === "fa" ? "fa" : "en";
  root.dir = lang === "fa" ? "rtl" : "ltr";
  root.dataset.theme = dark ? "dark" : "light";
})();
