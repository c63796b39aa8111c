// The slider travels through a job's versions: its address is that of the page at that version.
import { refresh } from "./parts.js";

export function travel() {
  const form = document.querySelector("[data-travel]");
  if (!form) return;
  const slider = form.querySelector("input");
  const shown = form.querySelector("output");
  const say = () => {
    shown.textContent = `${slider.value} of ${slider.max}`;
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("click", ({ target }) => {
    if (!target.dataset.step) return;
    slider.value = Number(slider.value) + Number(target.dataset.step);
    slider.dispatchEvent(new Event("input"));
  });
  slider.addEventListener("input", () => {
    const newest = slider.value === slider.max;
    history.replaceState(null, "", newest ? location.pathname : `?at_version=${slider.value}`);
    say();
    refresh();
  });
  document.addEventListener("refreshed", () => {
    const newest = slider.value === slider.max && !location.search;
    slider.max = document.getElementById("travel").dataset.last;
    if (newest) slider.value = slider.max;
    say();
  });
  // Somebody was quicker than this script.
  if (slider.value !== slider.defaultValue) slider.dispatchEvent(new Event("input"));
}
