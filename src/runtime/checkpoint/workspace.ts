import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { RuntimeError, isErrno } from '../../kit/errors.js';
import type { Processes } from '../../native/processes.js';

/**
 * Where checkpoints come to be: `ROOT/CONTAINER/`, with `checkpoint/` for CRIU's images and `criu` for which process
 * writes them. What an agent leaves that dies meanwhile is found by the next one.
 */
export interface Workspace {
  /** Errors: `in-progress` while the container is being checkpointed. */
  open(containerId: string): Promise<WorkDirectory>;
  /** What an earlier agent left: containers whose checkpoint did not end, and may be frozen. Nothing of CRIU is left. */
  takeUp(): Promise<readonly string[]>;
  remove(containerId: string): Promise<void>;
}

export interface WorkDirectory extends AsyncDisposable {
  readonly dir: string;
  readonly imagesDir: string;
  /** Writes down which process group is at work. */
  note(pid: number): Promise<void>;
}

export interface WorkspaceDeps {
  readonly processes: Pick<Processes, 'startTime'>;
  readonly killGroup: (pid: number) => void;
}

export function openWorkspace(root: string, { processes, killGroup }: WorkspaceDeps): Workspace {
  const busy = new Set<string>();
  const remove = (id: string): Promise<void> => rm(join(root, id), { recursive: true, force: true });
  return {
    remove,
    async open(containerId) {
      if (busy.has(containerId)) {
        throw new RuntimeError('in-progress', `container ${containerId} is being checkpointed`);
      }
      busy.add(containerId);
      const dir = join(root, containerId);
      const imagesDir = join(dir, 'checkpoint');
      const close = async (): Promise<void> => {
        await remove(containerId).finally(() => busy.delete(containerId));
      };
      try {
        await remove(containerId);
        await mkdir(imagesDir, { recursive: true, mode: 0o700 });
      } catch (error) {
        await close();
        throw error;
      }
      return {
        dir,
        imagesDir,
        note: (pid) => writeFile(join(dir, 'criu'), `${pid} ${processes.startTime(pid)}\n`, { mode: 0o600 }),
        [Symbol.asyncDispose]: close,
      };
    },
    async takeUp() {
      const ids = await readdir(root).catch(nothing<string[]>([]));
      for (const id of ids) {
        const [pid = '', startTime] = (await readFile(join(root, id, 'criu'), 'utf8').catch(nothing('')))
          .trim()
          .split(' ');
        // The number may be another process's by now.
        if (pid !== '' && String(processes.startTime(Number(pid))) === startTime) killGroup(Number(pid));
      }
      return ids;
    },
  };
}

const nothing =
  <T>(instead: T) =>
  (error: unknown): T => {
    if (isErrno(error, 'ENOENT')) return instead;
    throw error;
  };
