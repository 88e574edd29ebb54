/** Counts of a Ginkgo JSON report, and the names and first lines of what failed. */
import { appendFileSync, readFileSync } from 'node:fs';

const [{ SpecReports: specs }] = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const its = specs.filter(({ LeafNodeType }) => LeafNodeType === 'It');
const inState = (...states) => its.filter(({ State }) => states.includes(State));
const passed = inState('passed').length;
const failed = its.filter(({ State }) => !['passed', 'skipped', 'pending'].includes(State));
const other = specs.filter(({ LeafNodeType, State }) => LeafNodeType !== 'It' && State === 'failed');
// Specs left out by a filter say nothing about this machine; a spec that skips itself says why.
const skipped = inState('skipped').filter(({ Failure }) => Failure?.Message);

for (const { ContainerHierarchyTexts, LeafNodeText, Failure } of [...other, ...failed]) {
  console.log(`✘ ${[...(ContainerHierarchyTexts ?? []), LeafNodeText].join(' › ')}`);
  console.log(`    ${(Failure?.Message ?? '').split('\n').slice(0, 4).join('\n    ')}`);
}
for (const { LeafNodeText, Failure } of skipped) console.log(`- ${LeafNodeText}: ${Failure.Message.split('\n')[0]}`);
const counts = { passed, failed: failed.length + other.length, skipped: skipped.length };
const totals = process.env.BERTH_TEST_TOTALS;
if (totals) appendFileSync(totals, `${JSON.stringify({ suite: 'conformance', ...counts })}\n`);
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = counts.failed > 0 || passed === 0 ? 1 : 0;
