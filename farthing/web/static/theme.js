// Before anything is drawn: the theme that was chosen here, if any; else the system's holds.
"use strict";
(() => {
  try {
    const chosen = localStorage.getItem("farthing-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // storage may be closed to pages: the system's theme holds
  }
})();
