// The client's own page: says when the client node is gone, and keeps the newest line of the log in sight.
const SILENCE_MS = 3000;
const banner = document.getElementById("gone");
let heard = performance.now();

document.addEventListener("htmx:after:swap", () => {
  heard = performance.now();
});

setInterval(() => {
  const isGone = performance.now() - heard >= SILENCE_MS && !document.hidden;
  banner.hidden = !isGone;
  for (const button of document.querySelectorAll("#live form button")) button.disabled = isGone; // nobody would hear it
}, 500);

// A tab in the background is asked for seldom: what it missed is no sign of anything.
document.addEventListener("visibilitychange", () => {
  heard = performance.now();
});

let isAtEnd = true;
const log = () => document.getElementById("log");
document.addEventListener("scroll", (event) => {
  const box = event.target;
  if (box === log()) isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
}, true);

function follow() {
  if (isAtEnd) log().scrollTop = log().scrollHeight;
}
new MutationObserver(follow).observe(document.getElementById("main"), { childList: true, subtree: true });
follow();
