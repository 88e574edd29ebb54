import {
  chownSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../kit/errors.js';
import type { Native } from '../../native/native.js';

const text = 'data of the layer below';
const owner = 65536;

/**
 * Tries on the file system of `dir` what a layer without data needs: trusted attributes and an overlay with
 * metacopy=on, which must show the upper file's owner with the lower file's data. Returns what is in the way.
 */
export function metacopyRefusal({ mounts, files }: Pick<Native, 'mounts' | 'files'>, dir: string): string | undefined {
  const place = mkdtempSync(join(dir, 'probe-'));
  try {
    const [above, below] = [join(place, 'above'), join(place, 'below')];
    for (const layer of [above, below]) {
      mkdirSync(layer);
      writeFileSync(join(layer, 'file'), layer === below ? text : '');
    }
    const file = join(above, 'file');
    truncateSync(file, text.length);
    chownSync(file, owner, owner);
    files.setXattr(file, 'trusted.overlay.metacopy', new Uint8Array());
    const shown = lookThrough(mounts, above, below);
    return shown === `${owner} ${text}` ? undefined : 'overlay with metacopy=on does not show the data below';
  } catch (error) {
    return `overlay with metacopy=on below ${dir}: ${messageOf(error)}`;
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}

/** The file's owner and content in an overlay of the two that is mounted nowhere. */
function lookThrough(mounts: Native['mounts'], above: string, below: string): string {
  using context = mounts.openFileSystem('overlay');
  const layers = [above, below].map((layer) => openSync(layer, 'r'));
  try {
    mounts.configure(context.fd, 'lowerdir', layers.map((fd) => `/proc/self/fd/${fd}`).join(':'));
    mounts.configure(context.fd, 'metacopy', 'on');
    using mount = mounts.create(context.fd, 0);
    const file = `/proc/self/fd/${mount.fd}/file`;
    return `${statSync(file).uid} ${readFileSync(file, 'utf8')}`;
  } finally {
    for (const fd of layers) closeSync(fd);
  }
}
