// Whether what the page shows is live, said once for every change.
export function connection(state) {
  const shown = document.getElementById("connection");
  if (shown.textContent === state) return;
  shown.textContent = state;
  shown.className = state.startsWith("reconnecting") ? "lost" : "";
}
