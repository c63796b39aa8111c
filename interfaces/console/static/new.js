// Asking for a page or a video; the job's own page then shows how it is made.
import { send } from "./calls.js";

export function makeNew() {
  const question = document.querySelector("form[data-question]");
  if (!question) return;
  askQuestion(question);
  makeDeck(document.querySelector("form[data-deck]"));
}

function askQuestion(form) {
  const text = form.querySelector("textarea");
  const file = form.querySelector("input[type=file]");
  file.addEventListener("change", () => {
    text.required = !file.files.length;
  });
  droppable(form.closest(".card"), file);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    let body = JSON.stringify({ question: text.value });
    if (file.files.length) {
      const [chosen] = file.files;
      form.dataset.body = `${chosen.name} ${chosen.size} ${chosen.lastModified}`;
      body = new FormData();
      body.append("file", chosen);
    }
    open(await send(form, "POST", "/v1/visualizations", body));
  });
}

function makeDeck(form) {
  const slides = form.querySelector("#slides");
  const json = form.querySelector("#json");
  const file = form.querySelector("#deck-file");
  const add = () => {
    if (slides.children.length >= Number(form.dataset.most)) return;
    const slide = document.getElementById("slide").content.cloneNode(true).firstElementChild;
    slides.append(slide);
    number();
    return slide;
  };
  const number = () => {
    [...slides.children].forEach((slide, n) => {
      slide.querySelector("legend").textContent = `Slide ${n + 1}`;
      slide.querySelector("[data-remove]").hidden = slides.children.length === 1;
    });
  };
  add();
  form.querySelector("[data-add]").addEventListener("click", () => add()?.querySelector("input").focus());
  slides.addEventListener("click", (event) => {
    if (!event.target.matches("[data-remove]")) return;
    event.target.closest(".slide").remove();
    number();
    form.querySelector("[data-add]").focus();
  });
  file.addEventListener("change", async () => {
    if (file.files.length) json.value = await file.files[0].text();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    open(await send(form, "POST", "/v1/presentations", json.value.trim() || JSON.stringify(deck(form, slides))));
  });
}

function deck(form, slides) {
  const { title, theme, size, renderer } = form.elements;
  return {
    title: title.value,
    theme: theme.value,
    size: size.value,
    renderer: renderer.value,
    slides: [...slides.children].map((slide) => ({
      title: slide.querySelector("[name=slide-title]").value,
      bullets: slide.querySelector("[name=slide-bullets]").value.split("\n").map((line) => line.trim()).filter(Boolean),
      notes: slide.querySelector("[name=slide-notes]").value,
    })),
  };
}

function droppable(card, file) {
  card.addEventListener("dragover", (event) => {
    event.preventDefault();
    card.classList.add("over");
  });
  card.addEventListener("dragleave", () => card.classList.remove("over"));
  card.addEventListener("drop", (event) => {
    event.preventDefault();
    card.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    file.files = event.dataTransfer.files;
    file.dispatchEvent(new Event("change"));
  });
}

function open(job) {
  if (job) location.assign(`/jobs/${job.id}`);
}
