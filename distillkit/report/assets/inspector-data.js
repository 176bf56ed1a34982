"use strict";
// What the inspector reads: completions as `inspector/encode.py` writes them, decoded when they are looked at.
const inspectorData = (() => {
  const UNIT = 0.001;
  const UNKNOWN = -32768;

  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  function words(text) {
    const bytes = bytesOf(text);
    const view = new DataView(bytes.buffer);
    return Array.from({ length: bytes.length / 2 }, (_, at) => view.getUint16(2 * at, true));
  }

  /** Numbers of `count` tokens; NaN where one is not known. */
  function numbers(value, count) {
    if (value === null || value === undefined) return new Array(count).fill(NaN);
    if (typeof value === "number") return new Array(count).fill(value);
    const [unit, text] = typeof value === "string" ? [UNIT, value] : value;
    return words(text).map((word) => {
      const signed = word > 32767 ? word - 65536 : word;
      return signed === UNKNOWN ? NaN : signed * unit;
    });
  }

  /** Characters that move, hide or control text, as what can be seen. */
  const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u00a0\u00ad\u061c\u115f\u1160\u180e\u2000-\u200b\u200e-\u200f\u2028-\u202f\u205f-\u206f\u3164\ufeff\ufff0-\uffff\ud800-\udfff]|[\u{e0000}-\u{e0fff}]/gu;
  const printable = (text) => text.replace(UNSEEN, (found) => {
    const code = found.codePointAt(0);
    if (code === 0xfffd) return found;
    if (code === 0xa0 || code === 0x202f) return "⍽";
    return code < 32 ? String.fromCharCode(0x2400 + code) : `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
  });

  /** A token as it stands in the text: what cannot be seen has a sign, and lines still end. */
  const inText = (token) => printable(token).replace(/\n/g, "↵\n").replace(/\t/g, "⇥\t");

  /** A token by itself, on one line; spaces at its ends are seen. */
  function alone(token) {
    if (token === "") return "[part of a character]";
    const marked = printable(token).replace(/\n/g, "↵").replace(/\t/g, "⇥");
    return marked.replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
  }

  class Completion {
    constructor(raw, index, data) {
      Object.assign(this, { raw, index, data });
      const [run, step, stage] = data.sources[raw.s];
      Object.assign(this, { run, step, stage, route: raw.r, row: raw.w, cut: raw.f === 1 });
      [this.active, this.sum, this.lowest, this.lowestAt] = raw.d;
    }
    get mean() { return this.active ? this.sum / this.active : 0; }
    get when() {
      return { train: `step ${this.step}`, before: "before", after: "after", during: `evaluation, step ${this.step}` }[this.stage];
    }
    get key() { return `${this.run} ${this.row} ${this.raw.n} ${this.stage === "train"}`; }
    get question() { return this.data.texts[this.raw.q]; }
    get tokens() { return (this._tokens ??= words(this.raw.k).map((at) => this.data.tokens[at])); }
    get length() {
      const padding = this.raw.k.length - this.raw.k.replace(/=+$/, "").length;
      return (this.raw.k.length / 4 * 3 - padding) / 2;
    }
    get text() { return this.tokens.join(""); }
    /** For searching; kept, since a search is made at every key. */
    get searched() { return (this._searched ??= `${this.text}\n${this.question}\n${this.data.rows[this.row]}`.toLowerCase()); }
    get masked() {
      const pairs = this.raw.m ?? [];
      return pairs.flatMap((low, at) => (at % 2 ? [] : [[low, low + pairs[at + 1]]]));
    }
    get special() { return (this._special ??= new Set(this.raw.x ?? [])); }
    has(key) { return this.raw[key] !== undefined; }
    array(key) {
      this._arrays ??= {};
      return (this._arrays[key] ??= numbers(this.raw[key], this.tokens.length));
    }
    get gap() { return (this._gap ??= this.array("v").map((teacher, at) => teacher - this.array("u")[at])); }
    get push() { return this.has("a") ? this.array("a") : this.gap; }
    get teacherPrompts() { return this.raw.t.map(([name, text]) => [this.data.teachers[name], this.data.texts[text]]); }
    get prompt() { return this.data.texts[this.raw.p]; }
    get each() { return (this.raw.o ?? []).map(([name, values]) => [this.data.teachers[name], numbers(values, this.tokens.length)]); }
    /** Of one position: pairs of name and the most probable tokens with their logprobs. */
    topkAt(at) {
      const tables = [...(this.has("y") ? [["student", this.raw.y]] : []),
        ...(this.raw.z ?? []).map(([name, table]) => [this.data.teachers[name], table])];
      return tables.map(([name, [wide, tokens, values]]) => {
        const [texts, logprobs] = [words(tokens), numbers(values, wide * this.tokens.length)];
        const places = Array.from({ length: wide }, (_, k) => at * wide + k);
        return [name, places.map((place) => [this.data.tokens[texts[place]], logprobs[place]]).filter(([, x]) => !Number.isNaN(x))];
      });
    }
  }

  const number = (value, digits = 3) => (Number.isNaN(value) ? "?" : value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−"));
  const signed = (value, digits = 3) => (value > 0 ? "+" : "") + number(value, digits);

  function load(id) {
    const data = JSON.parse(document.getElementById(id).textContent);
    return { ...data, completions: data.completions.map((raw, index) => new Completion(raw, index, data)) };
  }
  return { load, printable, inText, alone, number, signed };
})();
