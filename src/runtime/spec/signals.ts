import { invalid } from '../../kit/errors.js';

/** Signal numbers of x86-64 and arm64 (signal(7), "Signal numbering for standard signals"). */
const standard = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGILL',
  'SIGTRAP',
  'SIGABRT',
  'SIGBUS',
  'SIGFPE',
  'SIGKILL',
  'SIGUSR1',
  'SIGSEGV',
  'SIGUSR2',
  'SIGPIPE',
  'SIGALRM',
  'SIGTERM',
  'SIGSTKFLT',
  'SIGCHLD',
  'SIGCONT',
  'SIGSTOP',
  'SIGTSTP',
  'SIGTTIN',
  'SIGTTOU',
  'SIGURG',
  'SIGXCPU',
  'SIGXFSZ',
  'SIGVTALRM',
  'SIGPROF',
  'SIGWINCH',
  'SIGIO',
  'SIGPWR',
  'SIGSYS',
] as const;

const firstRealTime = 34;
const lastRealTime = 64;

/** Full name (`SIGTERM`, `SIGRTMIN+3`) of a signal given by name, with or without SIG, or by number. */
export function signalName(text: string, field: string): string {
  const trimmed = text.trim().toUpperCase();
  if (/^[0-9]+$/.test(trimmed)) return nameOfNumber(Number(trimmed), field);
  const name = trimmed.startsWith('SIG') ? trimmed : `SIG${trimmed}`;
  return nameOfNumber(signalNumber(name, field), field);
}

/** Number of a signal by its full name. */
export function signalNumber(name: string, field = 'signal'): number {
  const index = (standard as readonly string[]).indexOf(
    name === 'SIGPOLL' ? 'SIGIO' : name === 'SIGIOT' ? 'SIGABRT' : name,
  );
  if (index >= 0) return index + 1;
  const realTime = /^SIGRT(MIN|MAX)(?:([+-])([0-9]{1,2}))?$/.exec(name);
  if (realTime !== null) {
    const base = realTime[1] === 'MIN' ? firstRealTime : lastRealTime;
    const offset = Number(`${realTime[2] ?? '+'}${realTime[3] ?? '0'}`);
    const number = base + offset;
    if (number >= firstRealTime && number <= lastRealTime) return number;
  }
  throw invalid(field, `"${name}" is no signal`);
}

function nameOfNumber(number: number, field: string): string {
  const name = standard[number - 1];
  if (name !== undefined) return name;
  if (number < firstRealTime || number > lastRealTime) throw invalid(field, `${number} is no signal`);
  return number === firstRealTime ? 'SIGRTMIN' : `SIGRTMIN+${number - firstRealTime}`;
}
