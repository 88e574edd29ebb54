import assert from 'node:assert/strict';
import { join } from 'node:path';
import { startAgent, type TestAgent } from '../support/agent.js';
import { growth, measuredEnvironment } from '../support/soak/measure.js';
import { soak } from '../support/soak/soak.js';
import { soakImage } from '../support/soak/work.js';
import { buildTestImage } from '../support/test-image.js';

/** `npm run soak` is the same at length. */
describe('an agent that works for long', function () {
  this.timeout(300_000);
  let agent: TestAgent;

  before(async () => {
    agent = await startAgent({ env: measuredEnvironment });
    const layout = buildTestImage(join(agent.dir, 'image'), { name: soakImage });
    const { code, stderr } = await agent.berth('image', 'import', layout);
    assert.equal(code, 0, stderr);
  });
  after(async () => assert.deepEqual(await agent.close(), []));

  it('holds no more after execs, attaches, pods and crashes than before', async () => {
    const { phases } = await soak(agent, { execs: 200, attaches: 50, pods: 12, crashChance: 0.2, samples: 5 });
    for (const [phase, samples] of Object.entries(phases)) {
      const grown = growth(samples).filter(({ growth: by, allowed }) => by > allowed);
      assert.deepEqual(grown, [], `after ${phase}`);
    }
  });
});
