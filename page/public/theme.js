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
  var dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.lang = lang === "fa" ? "fa" : "en";
  root.dir = lang === "fa" ? "rtl" : "ltr";
  root.dataset.theme = dark ? "dark" : "light";
})();
