// What the tab keeps until it is closed: drafts of inputs, and past runs. A full or forbidden store is no failure.

const place = (name) => `dspy-live ${location.pathname} ${name}`;

export function keep(name, value) {
  try {
    sessionStorage.setItem(place(name), JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

export function kept(name) {
  try {
    return JSON.parse(sessionStorage.getItem(place(name)));
  } catch {
    return null;
  }
}
