// A link may bring the token behind "#token=", which a browser sends to no server. It is
// used once, and taken out of the address and the history.

function logIn() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", "./");
  const field = document.getElementById("token");
  field.value = token;
  field.form.submit();
}

addEventListener("hashchange", logIn); // in a tab that shows the form, a link changes only that
logIn();
