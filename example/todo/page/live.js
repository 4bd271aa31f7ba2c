// Without htmx, these lines do what its attributes in the page say.
import { connect } from "/channels.js";

const list = document.getElementById("list");
const todo = connect().channel("todo", { since: list.dataset.since });
todo.on("reset", () => location.reload());
for await (const m of todo) list.innerHTML = m.body;
