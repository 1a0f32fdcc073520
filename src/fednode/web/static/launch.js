// The launch form in a browser: only the chosen strategy's fields, a panel that follows what is typed and who comes and
// goes, and what was wrong goes when it is no longer. Without it the form works, and says what is wrong when it is sent.

const form = document.getElementById("launch");
const live = document.getElementById("live");
const strategy = document.getElementById("f-strategy");
document.documentElement.classList.add("js");

function showStrategy() {
  for (const part of form.querySelectorAll("[data-strategy]")) {
    const isChosen = part.dataset.strategy === strategy.value;
    part.hidden = !isChosen;
    part.open = isChosen;
    part.querySelector("fieldset").disabled = !isChosen; // and so it is not sent
  }
}

function recheck() {
  form.dispatchEvent(new CustomEvent("recheck"));
}

// A field that was wrong when the form was sent, and is not any more.
function forgive() {
  const wrong = document.getElementById("launch-check").dataset.wrong.split(" ");
  for (const told of form.querySelectorAll(".field-error")) {
    const name = told.id.slice("f-".length, -"-error".length);
    told.hidden = !wrong.includes(name);
    const field = document.getElementById(`f-${name}`);
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
