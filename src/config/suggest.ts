/** ` (did you mean "x"?)` for the nearest of the known names, or ''. */
export function didYouMean(given: string, known: Iterable<string>): string {
  let best: { readonly name: string; readonly distance: number } | undefined;
  for (const name of known) {
    const distance = editDistance(given, name);
    if (distance < (best?.distance ?? Math.max(2, Math.ceil(given.length / 3)) + 1)) best = { name, distance };
  }
  return best === undefined ? '' : ` (did you mean "${best.name}"?)`;
}

/** Levenshtein's: the least number of letters inserted, removed or changed. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
