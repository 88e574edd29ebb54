/**
 * Prints a table of suites and the closing line from the JSON lines in the file named first; exits 1 on failures.
 * With a second argument the counts of this part of a larger run carry that name, and the closing line stays unique.
 */
import { readFileSync } from 'node:fs';

const rows = readFileSync(process.argv[2], 'utf8')
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => JSON.parse(line));
const total = { passed: 0, failed: 0, skipped: 0 };
for (const row of rows) {
  for (const key of Object.keys(total)) total[key] += row[key];
  console.log(`  ${row.suite.padEnd(24)} ${row.passed} passed, ${row.failed} failed, ${row.skipped} skipped`);
}
const part = process.argv[3] === undefined ? '' : `${process.argv[3]} in all: `;
console.log(`${part}${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0;
