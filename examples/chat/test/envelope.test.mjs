import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EnvelopeType, readEnvelope, writeEnvelope } from '../lib/envelope.mjs';

const ALICE = '9d0652a3-dcc3-4d11-975f-74d61598733f';

test('an envelope reads back as it was written', () => {
  const envelope = {
    type: EnvelopeType.PREKEY,
    timestamp: 1_795_000_000_123,
    sourceDevice: 1,
    content: new Uint8Array(3000).fill(7),
    serverTimestamp: 1_795_000_000_456,
    urgent: false,
    source: ALICE,
    destination: '796abedb-ca4e-4f18-8803-1fde5b921f9f',
    guid: '0c6a3ed5-1f1b-4a2e-8ef9-5f2d6b8d6f00',
  };
  assert.deepEqual(readEnvelope(writeEnvelope(envelope)), envelope);
});

test('the binary form of an id wins over the text', () => {
  const bytes = Buffer.concat([
    writeEnvelope({ type: 1, source: 'somebody else' }),
    Buffer.from([0x9a, 0x01, 16]), // field 19, sixteen bytes
    Buffer.from(ALICE.replaceAll('-', ''), 'hex'),
    Buffer.from([0xa2, 0x01, 17, 1]), // field 20, a PNI
    Buffer.from(ALICE.replaceAll('-', ''), 'hex'),
  ]);
  const { source, destination } = readEnvelope(bytes);
  assert.equal(source, ALICE);
  assert.equal(destination, `PNI:${ALICE}`);
});

test('unknown fields are skipped', () => {
  const unknown = Buffer.from([0xf8, 0x07, 5, 0xf9, 0x07, 1, 2, 3, 4, 5, 6, 7, 8, 0xfa, 0x07, 1, 9, 0xfd, 0x07, 1, 2, 3, 4]);
  assert.equal(readEnvelope(Buffer.concat([unknown, writeEnvelope({ type: 6 })])).type, 6);
});

test('an envelope that was cut off is refused', () => {
  const bytes = writeEnvelope({ type: 1, content: new Uint8Array(50) });
  assert.throws(() => readEnvelope(bytes.subarray(0, 20)), /ends in the middle/);
});
