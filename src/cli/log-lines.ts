import { open, stat, type FileHandle } from 'node:fs/promises';
import { sleep } from '../kit/deadline.js';
import { isErrno } from '../kit/errors.js';

/** One entry of a CRI log: `TIME stdout|stderr F|P TEXT`. A partial entry's text goes on in the next one. */
export interface LogEntry {
  readonly time: string;
  readonly stream: 'stdout' | 'stderr';
  readonly partial: boolean;
  readonly text: Buffer;
}

/** Undefined for a line that is not in the format. */
export function parseLogLine(line: Buffer): LogEntry | undefined {
  const head = /^(\S+) (stdout|stderr) ([FP](?::\S+)?) ?/.exec(line.toString('latin1'));
  if (head === null) return undefined;
  const [whole, time = '', stream, tag = ''] = head;
  return {
    time,
    stream: stream as LogEntry['stream'],
    partial: tag.startsWith('P'),
    text: line.subarray(whole.length),
  };
}

/** What the program wrote: the text, with the newline that ended it. */
export const logBytes = (entry: LogEntry): Buffer =>
  entry.partial ? entry.text : Buffer.concat([entry.text, Buffer.from('\n')]);

export interface FollowOptions {
  /** Byte offset to begin at. */
  readonly from?: number;
  /** Asked at the end of the file: no more will come. Without it reading ends at the end of the file. */
  readonly ended?: () => Promise<boolean>;
  readonly signal?: AbortSignal;
}

const pollMs = 50;
const chunkBytes = 64 * 1024;

/** Entries of a log in order, also across a rotation (the path then names a new file). A missing file is empty. */
export async function* readLog(
  path: string,
  { from = 0, ended, signal }: FollowOptions = {},
): AsyncGenerator<LogEntry> {
  let file = await openLog(path);
  let offset = from;
  let rest: Buffer = Buffer.alloc(0);
  try {
    for (let last = ended === undefined; signal?.aborted !== true;) {
      for (let chunk = await readAt(file, offset); chunk.length > 0; chunk = await readAt(file, offset)) {
        offset += chunk.length;
        const lines = splitLines(Buffer.concat([rest, chunk]));
        rest = lines.rest;
        yield* lines.whole.map(parseLogLine).filter((entry) => entry !== undefined);
      }
      if (await wasReplaced(file, path)) {
        await file?.close();
        file = await openLog(path);
        offset = 0;
        continue;
      }
      if (last) return;
      last = (await ended?.()) ?? true;
      if (!last) await sleep(pollMs);
    }
  } finally {
    await file?.close();
  }
}

async function openLog(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

async function readAt(file: FileHandle | undefined, offset: number): Promise<Buffer> {
  if (file === undefined) return Buffer.alloc(0);
  const { bytesRead, buffer } = await file.read(Buffer.alloc(chunkBytes), 0, chunkBytes, offset);
  return buffer.subarray(0, bytesRead);
}

async function wasReplaced(file: FileHandle | undefined, path: string): Promise<boolean> {
  try {
    const now = await stat(path);
    return file === undefined || (await file.stat()).ino !== now.ino;
  } catch {
    return false;
  }
}

function splitLines(data: Buffer): { whole: readonly Buffer[]; rest: Buffer } {
  const whole: Buffer[] = [];
  let start = 0;
  for (let end = data.indexOf(10, start); end >= 0; end = data.indexOf(10, start)) {
    whole.push(data.subarray(start, end));
    start = end + 1;
  }
  return { whole, rest: data.subarray(start) };
}

/** Byte offset of the last `count` entries of a file. */
export async function offsetOfLast(path: string, count: number): Promise<number> {
  const file = await openLog(path);
  if (file === undefined) return 0;
  try {
    let end = (await file.stat()).size;
    let wanted = count + 1;
    while (end > 0) {
      const start = Math.max(0, end - chunkBytes);
      const chunk = (await readAt(file, start)).subarray(0, end - start);
      for (let at = chunk.lastIndexOf(10); at >= 0; at = at === 0 ? -1 : chunk.lastIndexOf(10, at - 1))
        if (--wanted === 0) return start + at + 1;
      end = start;
    }
    return 0;
  } finally {
    await file.close();
  }
}
