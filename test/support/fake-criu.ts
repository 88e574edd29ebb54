import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** How a stand-in for CRIU behaves. `hangs` starts a helper and waits for ever. */
export type FakeCriuWay = 'works' | 'fails' | 'hangs' | 'is old' | 'lacks the kernel';

export interface FakeCriu {
  readonly path: string;
  behave(way: FakeCriuWay): void;
  /** Arguments of the last dump, and whether the container was frozen then. */
  lastDump(): { readonly args: readonly string[]; readonly frozen: boolean };
  /** Process ids of a dump that hangs and of its helper; undefined while none does. */
  hanging(): readonly number[] | undefined;
}

const script = (dir: string): string => `#!/bin/sh
way=$(cat ${dir}/way)
case "$1" in
--version)
  [ "$way" = 'is old' ] && echo 'Version: 2.0' || echo 'Version: 4.1.1'
  exit 0 ;;
check)
  [ "$way" = 'lacks the kernel' ] && { echo 'Error (kerndat.c:1): no such feature'; exit 1; }
  exit 0 ;;
esac
printf '%s\\n' "$@" > ${dir}/args
while [ $# -gt 0 ]; do
  case "$1" in
  --images-dir) images=$2 ;;
  --work-dir) work=$2 ;;
  --freeze-cgroup) freezer=$2 ;;
  esac
  shift
done
cat "$freezer/cgroup.events" "$freezer/freezer.state" > ${dir}/frozen 2>/dev/null
echo '(00.1) dumping' > "$work/dump.log"
case "$way" in
fails)
  echo '(00.2) Error (cr-dump.c:7): no way to dump this' >> "$work/dump.log"
  exit 1 ;;
hangs)
  sleep 1000 &
  echo "$$ $!" > ${dir}/hanging
  wait ;;
esac
echo inventory > "$images/inventory.img"
echo stats > "$work/stats-dump"
`;

/** A program of that name in a directory of its own. */
export function makeFakeCriu(dir: string): FakeCriu {
  mkdirSync(dir, { recursive: true });
  const path = join(dir, 'criu');
  writeFileSync(path, script(dir));
  chmodSync(path, 0o755);
  const fake: FakeCriu = {
    path,
    behave(way) {
      rmSync(join(dir, 'hanging'), { force: true });
      writeFileSync(join(dir, 'way'), way);
    },
    lastDump: () => ({
      args: readFileSync(join(dir, 'args'), 'utf8').trimEnd().split('\n'),
      frozen: /^frozen 1$|^FROZEN$/m.test(readFileSync(join(dir, 'frozen'), 'utf8')),
    }),
    hanging() {
      const file = join(dir, 'hanging');
      const pids = existsSync(file) ? readFileSync(file, 'utf8').trim().split(' ') : [];
      return pids.length === 2 ? pids.map(Number) : undefined;
    },
  };
  fake.behave('works');
  return fake;
}
