import { invalid } from '../../kit/errors.js';
import { Signal } from '../../../api/cri/v1/generated/api.js';

const byValue = new Map<number, string>();
const byName = new Map<string, Signal>();
for (const [key, value] of Object.entries(Signal)) {
  const name = nameOf(key);
  byValue.set(value, name);
  byName.set(name, value);
}

/** `SIGNAL_SIGRTMINPLUS3` → `SIGRTMIN+3`. */
function nameOf(key: string): string {
  return key
    .replace(/^SIGNAL_/, '')
    .replace('PLUS', '+')
    .replace('MINUS', '-');
}

/** The signal's name as the runtime writes it, or undefined when the choice is left to image and runtime. */
export function signalName(path: string, signal: Signal): string | undefined {
  if (signal === Signal.SIGNAL_RUNTIME_DEFAULT) return undefined;
  const name = byValue.get(signal);
  if (name === undefined) throw invalid(path, `value ${signal} is not supported`);
  return name;
}

/** The enum value of a name or number; signals the enum cannot name are reported as the runtime's default. */
export function signalValue(name: string): Signal {
  return byName.get(name.toUpperCase()) ?? Signal.SIGNAL_RUNTIME_DEFAULT;
}
