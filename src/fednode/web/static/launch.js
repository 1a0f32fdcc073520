// The launch form in a browser: only the chosen strategy's fields, a panel that follows what is typed and who comes and
// goes, and what was wrong goes when it is no longer. Without it the form works, and says what is wrong when it is sent.

const form = document.getElementById("launch");
const live = document.getElementById("live");
const strategy = document.getElementById("f-strategy");
const parts = [...form.querySelectorAll("[data-strategy]")];
const place = parts[0]?.parentElement;
document.documentElement.classList.add("js");

// The others are taken out, with what was typed into them: so they are neither found nor sent.
function showStrategy() {
  for (const part of parts) part.remove();
  const chosen = parts.find((part) => part.dataset.strategy === strategy.value);
  if (!chosen) return;
  chosen.open = true;
  place.append(chosen);
}

function recheck() {
  form.dispatchEvent(new CustomEvent("recheck"));
}

// A field that was wrong when the form was sent, and is not any more.
function forgive() {
  const wrong = document.getElementById("launch-check").dataset.wrong.split(" ");
  for (const told of form.querySelectorAll(".field-error")) {
    const id = told.id.slice(0, -"-error".length);
    told.hidden = !wrong.includes(id);
    const field = document.getElementById(id);
    if (field?.hasAttribute("aria-invalid")) field.setAttribute("aria-invalid", String(!told.hidden));
  }
}

if (strategy) {
  strategy.addEventListener("input", showStrategy);
  showStrategy();
}

form.addEventListener("input", (event) => {
  if (event.target.name === "client") document.getElementById("roster-some").checked = true;
});

form.addEventListener("click", (event) => {
  const target = event.target.closest?.(".problems a")?.hash.slice(1);
  const field = target && document.getElementById(target);
  if (!field) return;
  event.preventDefault();
  for (let part = field.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
  (field.matches("fieldset") ? field.querySelector("input") : field).focus();
});

document.addEventListener("htmx:after:swap", forgive);

// Who offers the task now, and which runs are in the way. A page without fields has nothing to lose: it is made anew.
for (const name of ["changed", "htmx:sse:after:connection"]) live.addEventListener(name, strategy ? recheck : ifOffered);

async function ifOffered() {
  const page = await (await fetch(location.href)).text();
  if (page.includes('id="f-strategy"')) location.reload();
}
