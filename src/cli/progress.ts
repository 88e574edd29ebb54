import type { OnPullProgress, PullProgress } from '../runtime/facade.js';
import type { Output } from './context.js';
import { formatBytes, shortId } from './text.js';

export interface ProgressView {
  readonly onProgress: OnPullProgress;
  /** Draws the last state; call once. */
  end(): void;
}

/** A bar per layer on a terminal, a line per layer and phase elsewhere. */
export const pullProgress = (output: Output): ProgressView => (output.isTTY === true ? bars(output) : lines(output));

const redrawMs = 100;
const barWidth = 30;

function bars(output: Output): ProgressView {
  const layers = new Map<string, PullProgress>();
  let drawn = 0;
  let lastDraw = 0;
  const draw = (): void => {
    const width = output.columns ?? 80;
    const text = [...layers.values()].map((layer) => `\x1b[2K${barLine(layer).slice(0, width - 1)}\n`).join('');
    output.write(`${drawn > 0 ? `\x1b[${drawn}A` : ''}${text}`);
    drawn = layers.size;
    lastDraw = Date.now();
  };
  return {
    onProgress(progress) {
      const before = layers.get(progress.digest);
      layers.set(progress.digest, progress);
      if (before?.phase !== progress.phase || Date.now() - lastDraw >= redrawMs) draw();
    },
    end: draw,
  };
}

/** `3f2a9c1b0d4e  downloading  [=====>    ]  12.0 MiB / 30.1 MiB` */
export function barLine({ digest, phase, bytes, total }: PullProgress): string {
  const complete = phase === 'done' || phase === 'exists' || phase === 'unpacking';
  const share = complete ? 1 : total > 0 ? Math.min(1, bytes / total) : 0;
  const filled = Math.round(share * barWidth);
  const head = filled > 0 && filled < barWidth ? '>' : '';
  const bar = `${'='.repeat(filled - head.length)}${head}`.padEnd(barWidth);
  const size = complete ? formatBytes(total) : `${formatBytes(bytes)} / ${formatBytes(total)}`;
  return `${shortId(digest)}  ${phase.padEnd(11)}  [${bar}]  ${size}`;
}

function lines(output: Output): ProgressView {
  const phases = new Map<string, string>();
  return {
    onProgress({ digest, phase, total }) {
      if (phases.get(digest) === phase || phase === 'waiting') return;
      phases.set(digest, phase);
      output.write(`${shortId(digest)} ${phase} (${formatBytes(total)})\n`);
    },
    end: () => undefined,
  };
}
