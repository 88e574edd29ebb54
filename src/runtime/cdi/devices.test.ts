import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isKind } from '../../kit/errors.js';
import { openCdiDevices, type CdiDevices } from './devices.js';

describe('CDI devices of a node', () => {
  let root: string;
  let notes: string[];
  let devices: CdiDevices;
  const etc = (): string => join(root, 'etc');
  const run = (): string => join(root, 'run');

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'cdi-'));
    notes = [];
    devices = openCdiDevices([etc(), run()], (_level, message) => void notes.push(message));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  function write(directory: string, name: string, value: string, names: readonly string[] = ['0']): void {
    mkdirSync(directory, { recursive: true });
    const spec = {
      cdiVersion: '1.1.0',
      kind: 'v.com/c',
      devices: names.map((each) => ({ name: each, containerEdits: { env: [`D${each}=${value}`] } })),
      containerEdits: { env: [`S=${value}`] },
    };
    writeFileSync(join(directory, name), JSON.stringify(spec));
  }

  const edits = async (...names: string[]): Promise<string[]> =>
    (await devices.edits(names.map((name) => ({ name, field: 'f' })))).flatMap((each) => each.edits.env);
  const refused = async (name: string, message: RegExp): Promise<void> =>
    await assert.rejects(edits(name), (error) => isKind(error, 'invalid-argument') && message.test(error.message));

  it('are found without a directory, and as soon as there is one', async () => {
    await refused('v.com/c=0', /^f: no spec in .*etc, .*run describes the CDI device v\.com\/c=0$/);
    write(etc(), 'a.json', 'one');
    assert.deepEqual(await edits('v.com/c=0'), ['S=one', 'D0=one']);
    write(etc(), 'a.json', 'another');
    assert.deepEqual(await edits('v.com/c=0'), ['S=another', 'D0=another']);
  });

  it('have the edits of their spec once', async () => {
    write(etc(), 'a.json', 'x', ['0', '1']);
    assert.deepEqual(await edits('v.com/c=1', 'v.com/c=0'), ['S=x', 'D1=x', 'D0=x']);
  });

  it('of a later directory hide those of an earlier', async () => {
    write(etc(), 'a.json', 'etc', ['0', '1']);
    write(run(), 'z.yaml', 'run');
    assert.deepEqual(await edits('v.com/c=0'), ['S=run', 'D0=run']);
    assert.deepEqual(await edits('v.com/c=1'), ['S=etc', 'D1=etc']);
  });

  it('in two files of a directory are refused when they are asked for', async () => {
    write(etc(), 'a.json', 'a', ['0', '1']);
    write(etc(), 'b.json', 'b', ['0', '2']);
    await refused('v.com/c=0', /f: both .*a\.json and .*b\.json describe the CDI device v\.com\/c=0/);
    assert.deepEqual(await edits('v.com/c=1', 'v.com/c=2'), ['S=a', 'D1=a', 'S=b', 'D2=b']);
    write(run(), 'c.json', 'c');
    assert.deepEqual(await edits('v.com/c=0'), ['S=c', 'D0=c']);
  });

  it('do without files that are no specs, which are told of once', async () => {
    write(etc(), 'a.json', 'a');
    writeFileSync(join(etc(), 'b.yaml'), 'kind: x\n');
    execFileSync('mkfifo', [join(etc(), 'pipe.json')]);
    mkdirSync(join(etc(), 'dir.json'));
    writeFileSync(join(etc(), 'notes.txt'), 'x');
    assert.deepEqual(await edits('v.com/c=0'), ['S=a', 'D0=a']);
    assert.deepEqual(await edits('v.com/c=0'), ['S=a', 'D0=a']);
    assert.equal(notes.length, 2);
    assert.match(
      notes.join('\n'),
      /CDI spec .*b\.yaml: kind: "x" is not vendor\/class\n.*pipe\.json: .*no regular file/,
    );
    await refused('v.com/c=9', /; .*b\.yaml: kind: /);
    assert.deepEqual(
      devices.problems().map(({ path }) => path),
      [join(etc(), 'b.yaml'), join(etc(), 'pipe.json')],
    );
  });

  it('are refused by names that are none', async () => await refused('gpu0', /f: "gpu0" is no qualified name/));
});
