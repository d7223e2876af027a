// Attachments: the library asks for the form, the app uploads and downloads over plain HTTPS.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';

import { ErrorCode } from '../../../examples/chat/lib/signal.mjs';
import { base64 } from '../../../examples/chat/lib/device.mjs';
import { openAttachment, sealAttachment } from '../support/attachment-cipher.mjs';
import { answered, ask, begin } from '../support/https.mjs';
import { refusal } from '../support/person.mjs';
import { acquainted, eventually } from '../support/scenes.mjs';

const TUS = { 'tus-resumable': '1.0.0' };
const BYTES = 'application/offset+octet-stream';
const SIZE = 3_000_000;

export function attachments(story) {
  story('an upload that is cut off goes on where it stopped, on any node', async ({ sender, receiver, register }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const plain = randomBytes(SIZE);
    const { key, sealed } = sealAttachment(plain);
    const form = await alice.client.connection.getUploadForm({ uploadSize: BigInt(sealed.length) });
    assert.equal(form.cdn, 3);
    // The library names the host without the port: where it is not 443, `public_url` has to say it.
    assert.equal(form.signedUploadUrl.origin, 'https://localhost');
    const proof = Object.fromEntries(form.headers);

    const created = await ask(sender, 'POST', form.signedUploadUrl, {
      headers: { ...proof, ...TUS, 'upload-defer-length': '1' },
    });
    assert.equal(created.status, 201);
    const { location } = created.headers;
    const length = { 'upload-length': String(sealed.length) };
    const patch = (node, offset) =>
      begin(node, 'PATCH', location, {
        ...proof,
        ...TUS,
        ...length,
        'upload-offset': String(offset),
        'content-type': BYTES,
        'content-length': sealed.length - offset,
      });

    await cutOff(patch(sender, 0), sealed.subarray(0, sealed.length / 2));
    const [stopped, status] = await eventually(async () => {
      const found = await ask(receiver, 'HEAD', location, { headers: { ...proof, ...TUS } });
      assert.equal(found.status, 200);
      const offset = Number(found.headers['upload-offset']);
      assert.ok(offset > 0, 'some of it has arrived');
      const request = patch(receiver, offset);
      const answer = answered(request);
      request.end(sealed.subarray(offset));
      return [offset, (await answer).status];
    });
    assert.equal(status, 204);
    assert.ok(stopped < sealed.length, `${stopped} of ${sealed.length} bytes came before the cut`);
    const done = await ask(sender, 'HEAD', location, { headers: { ...proof, ...TUS } });
    assert.equal(done.headers['upload-offset'], String(sealed.length));

    // The message says where it is and how to open it; the server sees neither.
    await alice.client.send(bob.client.device.aci, JSON.stringify({ cdnKey: form.key, key: base64(key) }));
    const pointer = JSON.parse((await bob.read(2))[1]);
    const path = `/attachments/${pointer.cdnKey}`;
    const whole = await ask(receiver, 'GET', path);
    assert.equal(whole.status, 200);
    assert.equal(whole.headers['content-type'], 'application/octet-stream');
    assert.ok(openAttachment(Buffer.from(pointer.key, 'base64'), whole.body).equals(plain));

    const middle = 1_234_567;
    const parts = [];
    for (const range of [`bytes=0-${middle - 1}`, `bytes=${middle}-`]) {
      const part = await ask(receiver, 'GET', path, { headers: { range, 'if-range': whole.headers.etag } });
      assert.equal(part.status, 206);
      parts.push(part.body);
    }
    assert.equal(parts[0].length, middle);
    assert.ok(Buffer.concat(parts).equals(sealed));
    const known = await ask(receiver, 'GET', path, { headers: { 'if-none-match': whole.headers.etag } });
    assert.equal(known.status, 304);
    assert.equal(known.body.length, 0);
    const beyond = await ask(receiver, 'GET', path, { headers: { range: `bytes=${sealed.length}-` } });
    assert.equal(beyond.status, 416);
    const other = form.key.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A'));
    assert.equal((await ask(receiver, 'GET', `/attachments/${other}`)).status, 404);
  });

  story('what is not complete is not there, and only its owner goes on', async ({ sender, receiver, register }) => {
    const alice = await (await register(sender, 'Alice', { preKeys: 0 })).open(sender);
    const eve = await (await register(receiver, 'Eve', { preKeys: 0 })).open(receiver);
    const [form, other] = await Promise.all(
      [alice, eve].map(({ client }) => client.connection.getUploadForm({ uploadSize: 2000n })),
    );
    const [proof, foreign] = [form, other].map(({ headers }) => Object.fromEntries(headers));
    const created = await ask(sender, 'POST', form.signedUploadUrl, {
      headers: { ...proof, ...TUS, 'upload-length': '2000', 'content-type': BYTES },
      body: randomBytes(1000),
    });
    assert.equal(created.status, 201);
    const { location } = created.headers;
    assert.equal((await ask(receiver, 'GET', `/attachments/${form.key}`)).status, 404);
    const rest = { ...TUS, 'upload-offset': '1000', 'content-type': BYTES };
    const stolen = await ask(receiver, 'PATCH', location, { headers: { ...foreign, ...rest }, body: randomBytes(1000) });
    assert.equal(stolen.status, 403);
    const early = await ask(receiver, 'PATCH', location, {
      headers: { ...proof, ...rest, 'upload-offset': '0' },
      body: randomBytes(1000),
    });
    assert.equal(early.status, 409, 'not where it stands');
    const longer = await ask(receiver, 'PATCH', location, { headers: { ...proof, ...rest }, body: randomBytes(1001) });
    assert.equal(longer.status, 413);
    const last = await ask(receiver, 'PATCH', location, { headers: { ...proof, ...rest }, body: randomBytes(1000) });
    assert.equal(last.status, 204);
    assert.equal((await ask(receiver, 'GET', `/attachments/${form.key}`)).status, 200);
  });

  story('an upload may also come by signed PUTs', async ({ sender, receiver, register }) => {
    const alice = await (await register(sender, 'Alice', { preKeys: 0 })).open(sender);
    const sealed = randomBytes(SIZE);
    const form = await alice.client.connection.getUploadForm({ uploadSize: BigInt(sealed.length) });
    assert.equal(form.cdn, 2);
    const proof = Object.fromEntries(form.headers);
    const headers = { ...proof, 'content-type': 'application/octet-stream' };
    const opened = await ask(sender, 'POST', form.signedUploadUrl, { headers });
    assert.equal(opened.status, 201);
    const { location } = opened.headers;
    const stand = () => ask(receiver, 'PUT', location, { headers: { 'content-range': `bytes */${sealed.length}` } });
    const nothing = await stand();
    assert.equal(nothing.status, 308);
    assert.equal(nothing.headers.range, undefined);

    const request = begin(sender, 'PUT', location, { 'content-length': sealed.length });
    await cutOff(request, sealed.subarray(0, sealed.length / 2));
    const finished = await eventually(async () => {
      const { status, headers } = await stand();
      assert.equal(status, 308);
      const [, end] = /^bytes=0-(\d+)$/.exec(headers.range);
      const offset = Number(end) + 1;
      const range = `bytes ${offset}-${sealed.length - 1}/${sealed.length}`;
      const answer = await ask(receiver, 'PUT', location, {
        headers: { 'content-range': range },
        body: sealed.subarray(offset),
      });
      assert.equal(answer.status, 200);
      return answer;
    });
    assert.equal(finished.status, 200);
    assert.equal((await stand()).status, 200);
    const { body } = await ask(receiver, 'GET', `/attachments/${form.key}`);
    assert.equal(digest(body), digest(sealed));
  }, { ATTACHMENTS__FORM: 'put' });

  story('too much at once is UploadTooLarge, too much in a day is RateLimited', async ({ sender, register }) => {
    const alice = await (await register(sender, 'Alice', { preKeys: 0 })).open(sender);
    const form = (size) => alice.client.connection.getUploadForm({ uploadSize: size });
    await refusal(form(100_001n), ErrorCode.UploadTooLarge);
    await form(100_000n);
    await form(100_000n);
    const { retryAfterSecs } = await refusal(form(100_000n), ErrorCode.RateLimitedError);
    assert.ok(retryAfterSecs > 0 && retryAfterSecs <= 24 * 3600, `${retryAfterSecs} seconds`);
  }, { ATTACHMENTS__MAX_BYTES: '100000', ATTACHMENTS__DAILY_BYTES: '250000' });
}

/** Writes the beginning of a body, waits until it has left, and breaks the connection. */
async function cutOff(request, beginning) {
  const broken = assert.rejects(answered(request), 'the connection is broken');
  await new Promise((resolve) => request.write(beginning, resolve));
  request.destroy(new Error('cut off'));
  await broken;
}

function digest(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}
