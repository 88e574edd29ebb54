import { renderWaterfall } from '../observe/waterfall.js';
import type { Waterfall } from '../observe/waterfalls.js';

/** The `waterfall` of what `inspect` answers, drawn: one part for each request that brought the object up. */
export function drawWaterfalls(facts: Readonly<Record<string, unknown>>, width?: number): string {
  const found = Array.isArray(facts['waterfall']) ? (facts['waterfall'] as readonly Waterfall[]) : [];
  if (found.length === 0) return 'The steps are not known: the agent has started since, or another process ran them.\n';
  return found.map(({ request, steps }) => `${request}\n${indent(renderWaterfall(steps, width))}\n`).join('\n');
}

const indent = (text: string): string => text.replace(/^/gm, '  ');
