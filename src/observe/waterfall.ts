import type { RecordedStep } from '../kit/step-recorder.js';

/**
 * Draws recorded steps for a terminal: one line a step, indented below the step that contains it, with its duration
 * and a bar that shows when it ran.
 *
 * ```
 *   create pod cgroup          0.21 ms  ▕▏                    ▏
 *   start shim                 1.80 ms  ▕ ██▌                 ▏
 * ```
 */
export function renderWaterfall(steps: readonly RecordedStep[], width = 100): string {
  if (steps.length === 0) return '(no steps recorded)';
  const end = Math.max(...steps.map((step) => step.start + (step.duration ?? 0)), 0.001);
  const names = steps.map((step, index) => `${'  '.repeat(depthOf(steps, index))}${step.name}`);
  const nameWidth = Math.min(48, Math.max(...names.map((name) => name.length)));
  const barWidth = Math.max(10, width - nameWidth - 18);
  const lines = steps.map((step, index) => {
    const name = clip(names[index] ?? '', nameWidth);
    const time = step.duration === undefined ? 'running' : `${step.duration.toFixed(2)} ms`;
    const words = `${progressWords(step)}${step.failed ? ' failed' : ''}`;
    return `${name}  ${time.padStart(11)}  ${bar(step, end, barWidth)}${words}`.trimEnd();
  });
  return [...lines, `${'total'.padEnd(nameWidth)}  ${`${end.toFixed(2)} ms`.padStart(11)}`].join('\n');
}

const progressWords = ({ progress = {} }: RecordedStep): string =>
  Object.entries(progress)
    .map(([what, count]) => ` ${count} ${what}`)
    .join(',');

const clip = (text: string, width: number): string =>
  text.length > width ? `${text.slice(0, width - 1)}…` : text.padEnd(width);

/** How many earlier steps were still running when this one began, and ended after it. */
function depthOf(steps: readonly RecordedStep[], index: number): number {
  const step = steps[index];
  if (step === undefined) return 0;
  const endOf = (each: RecordedStep): number => (each.duration === undefined ? Infinity : each.start + each.duration);
  return steps.slice(0, index).filter((each) => endOf(each) >= endOf(step) && each.start <= step.start).length;
}

const eighths = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

function bar(step: RecordedStep, end: number, width: number): string {
  const from = Math.min(width - 1, Math.floor((step.start / end) * width));
  const length = ((step.duration ?? end - step.start) / end) * width;
  const whole = Math.min(width - from, Math.floor(length));
  const rest = whole < width - from ? (eighths[Math.floor((length - whole) * 8)] ?? '') : '';
  return `${' '.repeat(from)}${'█'.repeat(whole)}${rest || (whole === 0 ? '▏' : '')}`;
}
