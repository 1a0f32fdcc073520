// What every page does by itself: says when the central node is gone, tells times in the reader's zone, asks before a
// destructive act, copies, keeps live lists short. Pages work without it; `curves.js` draws, `draw.js` is Try it.

const SILENT_MS = 4500; // without a sign of life for so long, the node is gone
const root = document.documentElement;
const gone = document.getElementById("gone");
const live = document.querySelector("[hx-sse\\:connect]");
let heardMs = performance.now();

// --- is the central node there? -----------------------------------------------------------------------------------

function heard() {
  heardMs = performance.now();
  gone.hidden = true;
  root.dataset.live = "yes";
}

function lost() {
  gone.hidden = false;
  root.dataset.live = "no";
}

if (live) {
  for (const name of ["tick", "htmx:sse:after:connection", "htmx:sse:after:message"]) live.addEventListener(name, heard);
  live.addEventListener("htmx:sse:error", (event) => {
    if (event.detail.status === 401) location.reload(); // signed out meanwhile: the page leads to the sign-in
    lost();
  });
  live.addEventListener("reload", () => location.reload()); // too much was missed to replay it
  document.addEventListener("visibilitychange", () => (heardMs = performance.now()));
  setInterval(() => {
    if (!document.hidden && performance.now() - heardMs > SILENT_MS) lost();
  }, 500);
}

// --- what the reader sees --------------------------------------------------------------------------------------------

function tellTimes(scope) {
  for (const time of scope.querySelectorAll("time[datetime]")) {
    const told = new Date(time.dateTime).toLocaleString();
    if (time.textContent !== told) time.textContent = told;
  }
}

function shorten() {
  for (const list of document.querySelectorAll("[data-max-rows]")) {
    while (list.childElementCount > Number(list.dataset.maxRows)) list.lastElementChild.remove();
    const empty = list.closest(".card-table")?.querySelector(".empty");
    if (empty) empty.hidden = list.childElementCount > 0;
  }
}

document.addEventListener("htmx:after:swap", () => {
  tellTimes(document);
  shorten();
});
tellTimes(document);

document.getElementById("theme")?.addEventListener("click", () => {
  const next = root.dataset.bsTheme === "dark" ? "light" : "dark";
  localStorage.setItem("fednode-theme", next);
  root.dataset.bsTheme = next;
  document.dispatchEvent(new Event("fednode:theme"));
});

// --- buttons ---------------------------------------------------------------------------------------------------------

const dialog = document.getElementById("confirm");

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.confirm || form.dataset.confirmed) return;
  event.preventDefault();
  document.getElementById("confirm-question").textContent = form.dataset.confirm;
  document.getElementById("confirm-yes").textContent = form.dataset.yes || "Yes";
  dialog.returnValue = "no";
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    form.dataset.confirmed = "yes";
    form.requestSubmit(event.submitter ?? undefined);
  };
  dialog.showModal();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const source = document.querySelector(button.dataset.copy);
  const name = button.textContent;
  button.textContent = (await copy(source)) ? "Copied" : "Selected: press Ctrl+C";
  setTimeout(() => (button.textContent = name), 1500);
});

async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(source); // no clipboard over plain http beyond this machine
    return false;
  }
}
