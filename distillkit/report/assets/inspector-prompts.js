"use strict";
// What student and teacher read, beside each other: what only one of them reads is marked.
const inspectorPrompts = (() => {
  const { inText } = inspectorData;
  const MOST_CELLS = 4e6;

  const lines = (text) => text.match(/[^\n]*\n|[^\n]+/g) ?? [];
  const words = (text) => text.match(/\s+|[^\s]+/g) ?? [];

  /** What stands in both at the start and at the end: how many parts each. */
  function shared(a, b) {
    const most = Math.min(a.length, b.length);
    let [start, end] = [0, 0];
    while (start < most && a[start] === b[start]) start += 1;
    while (end < most - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
    return [start, end];
  }

  /** Pairs of kind (0: both read it, 1: only the second) and text, for each part of `second`: by lines, then by words. */
  function compared(first, second) {
    const [a, b] = [lines(first), lines(second)];
    const [start, end] = shared(a, b);
    const middle = b.slice(start, b.length - end);
    const others = a.slice(start, a.length - end);
    const both = (parts) => parts.map((text) => [0, text]);
    const changed = others.length === 1 && middle.length ? trimmed(others[0], middle.join("")) : within(others, middle);
    return joined([...both(b.slice(0, start)), ...changed, ...both(b.slice(b.length - end))]);
  }

  /** Of one line that became others: the words in the middle. */
  function trimmed(first, second) {
    const [a, b] = [words(first), words(second)];
    const [start, end] = shared(a, b);
    return b.map((text, at) => [at < start || at >= b.length - end ? 0 : 1, text]);
  }

  /** By the longest common subsequence; of what is too long for that, all is marked. */
  function within(a, b) {
    if (!a.length || !b.length || a.length * b.length > MOST_CELLS) return b.map((text) => [1, text]);
    const wide = b.length + 1;
    const lengths = new Uint16Array((a.length + 1) * wide);
    for (let i = a.length - 1; i >= 0; i -= 1) {
      for (let j = b.length - 1; j >= 0; j -= 1) {
        lengths[i * wide + j] = a[i] === b[j] ? lengths[(i + 1) * wide + j + 1] + 1 : Math.max(lengths[(i + 1) * wide + j], lengths[i * wide + j + 1]);
      }
    }
    const found = [];
    for (let i = 0, j = 0; j < b.length; ) {
      if (i < a.length && a[i] === b[j]) { found.push([0, b[j]]); i += 1; j += 1; } else if (i < a.length && lengths[(i + 1) * wide + j] >= lengths[i * wide + j + 1]) i += 1;
      else { found.push([1, b[j]]); j += 1; }
    }
    return found;
  }

  function joined(pairs) {
    const found = [];
    for (const [kind, text] of pairs) {
      const last = found[found.length - 1];
      if (last && last[0] === kind) last[1] += text;
      else found.push([kind, text]);
    }
    return found;
  }

  function panel(title, pairs, note) {
    const details = document.createElement("details");
    details.className = "prompt";
    details.open = true;
    const summary = document.createElement("summary");
    summary.textContent = title;
    const text = document.createElement("div");
    text.className = "prompt-text";
    text.dir = "auto";
    text.tabIndex = 0;
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", title);
    for (const [kind, part] of pairs) {
      const piece = document.createElement(kind && part.trim() ? "mark" : "span");
      piece.textContent = inText(part).replace(/↵\n/g, "\n");
      text.append(piece);
    }
    details.append(summary);
    if (note) {
      const said = document.createElement("p");
      said.className = "note";
      said.textContent = note;
      details.append(said);
    }
    details.append(text);
    return details;
  }

  /** The prompts of a completion: the student's, and each teacher's with what it reads besides. */
  function view(completion) {
    const box = document.createElement("div");
    box.className = "prompts";
    const student = completion.prompt;
    const others = completion.teacherPrompts;
    const same = others.filter(([, text]) => text === student).map(([name]) => name);
    const [reads, its] = same.length > 1 ? ["read", "prompts"] : ["reads", "prompt"];
    box.append(panel(same.length ? `Student's prompt; ${same.join(", ")} ${reads} the same` : "Student's prompt", [[0, student]], ""));
    for (const [name, text] of others.filter(([, each]) => each !== student)) {
      box.append(panel(`Teacher's ${its}: ${name}`, compared(student, text), "Marked: what the student does not read."));
    }
    return box;
  }
  return { view, compared };
})();
