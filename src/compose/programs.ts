import { fileURLToPath } from 'node:url';

/** The native programs that `npm run build` makes, by absolute path. */
export interface Programs {
  readonly shim: string;
  readonly unpack: string;
  readonly remap: string;
}

/** This file is dist/src/compose/programs.js once built, src/compose/programs.ts in a test; `build/` is beside both. */
export function builtPrograms(here = import.meta.url): Programs {
  const up = here.includes('/dist/src/') ? '../../../build' : '../../build';
  const path = (name: string): string => fileURLToPath(new URL(`${up}/${name}`, here));
  return { shim: path('shim/berth-shim'), unpack: path('unpack/berth-unpack'), remap: path('remap/berth-remap') };
}
