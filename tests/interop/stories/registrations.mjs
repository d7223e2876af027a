// Registration, and what it is refused for: each refusal is the library's own error for it.

import assert from 'node:assert/strict';

import { ErrorCode } from '../../../examples/chat/lib/signal.mjs';
import { makeAccount, named, verify } from '../../../examples/chat/lib/register.mjs';
import { remembering } from '../support/afterwards.mjs';
import { CODE, Person, refusal, someNumber } from '../support/person.mjs';
import { acquainted, lists, borrowedContents, sendTo } from '../support/scenes.mjs';

/** Too long to be a code. */
const WRONG_CODE = '0'.repeat(65);

export function registrations(story) {
  story('a number is verified once, in its session, with the right code', async ({ sender, receiver }) => {
    const number = someNumber();
    const service = await open(sender, number);
    assert.deepEqual(
      [service.sessionState.allowedToRequestCode, service.sessionState.verified],
      [true, false],
    );
    const { request } = await makeAccount({ number });
    await refusal(service.registerAccount(request), ErrorCode.RegistrationInvalidSession);
    assert.equal(await service.verifySession(WRONG_CODE), false);
    await refusal(service.registerAccount(request), ErrorCode.RegistrationInvalidSession);

    // It goes on at any node.
    const resumed = await resume(receiver, number, service.sessionId);
    await resumed.requestVerification({ transport: 'voice', client: 'interop', languages: ['de'] });
    assert.equal(await resumed.verifySession(CODE), true);
    const again = await refusal(resumed.verifySession(CODE), ErrorCode.RegistrationSessionNotReadyForVerification);
    assert.equal(again.sessionState.verified, true);
    const known = await resume(sender, number, service.sessionId);
    assert.equal(known.sessionState.verified, true);
    const other = await makeAccount({ number: someNumber() });
    const account = await known.registerAccount(request);
    assert.equal(account.number, number);
    assert.equal(account.reregistration, false);
    await refusal(known.registerAccount(other.request), ErrorCode.RegistrationInvalidSession);
  });

  story('a session ends after too many wrong codes, and an unknown one is not found', async ({ sender, receiver }) => {
    const number = someNumber();
    const service = await open(sender, number);
    let refused;
    for (let tries = 0; tries < 50 && !refused; tries += 1) {
      try {
        assert.equal(await service.verifySession(WRONG_CODE), false);
      } catch (error) {
        refused = error;
      }
    }
    assert.equal(refused?.code, ErrorCode.RateLimitedError, `${refused}`);
    assert.ok(refused.retryAfterSecs > 0 && refused.retryAfterSecs <= 600, `${refused.retryAfterSecs} seconds`);
    const more = service.requestVerification({ transport: 'sms', client: 'interop', languages: [] });
    await refusal(more, ErrorCode.RegistrationSessionNotReadyForVerification);

    const unknown = service.sessionId.replace(/^./, (first) => (first === 'A' ? 'B' : 'A'));
    await refusal(resume(receiver, number, unknown), ErrorCode.RegistrationSessionNotFound);
    await refusal(resume(receiver, number, 'abc'), ErrorCode.RegistrationSessionIdInvalid);
  });

  story(
    'whoever is invited types the code of the invite where the code that was sent is asked for',
    async ({ sender, receiver }) => {
      const made = await sender.admin('invite', 'create', '--uses', '1');
      const [code] = /\b(?:[0-9A-Z]{4}-){3}[0-9A-Z]{4}\b/.exec(made) ?? [];
      assert.ok(code, `no code in: ${made}`);
      const number = someNumber();
      const service = await open(receiver, number);
      await service.requestVerification({ transport: 'sms', client: 'interop', languages: [] });
      assert.equal(service.sessionState.allowedToRequestCode, true);
      assert.equal(await service.verifySession('123456'), false);
      assert.equal(await service.verifySession(code.toLowerCase()), true);
      const { request } = await makeAccount({ number });
      assert.equal((await service.registerAccount(request)).number, number);

      const late = await open(sender, someNumber());
      assert.equal(await late.verifySession(code), false, 'it is used up');
    },
    { REGISTRATION: 'invite' },
  );

  story(
    'a code that was sent registers, the fifth wrong one ends it, and the library knows each refusal',
    async ({ sender, receiver }) => {
      const number = someNumber();
      const service = await open(sender, number);
      await refusal(service.verifySession('123456'), ErrorCode.RegistrationSessionNotReadyForVerification);
      await service.requestVerification({ transport: 'sms', client: 'interop', languages: [] });
      const again = service.requestVerification({ transport: 'sms', client: 'interop', languages: [] });
      const soon = await refusal(again, ErrorCode.RateLimitedError);
      assert.ok(soon.retryAfterSecs > 0 && soon.retryAfterSecs <= 60, `${soon.retryAfterSecs} seconds`);
      const [, code] = /verification code: (\d{6})/.exec(sender.said()) ?? [];
      assert.ok(code, 'the code is on standard output');
      assert.equal(await service.verifySession(code === '000000' ? '000001' : '000000'), false);
      const resumed = await resume(receiver, number, service.sessionId);
      assert.equal(await resumed.verifySession(code), true);
      const { request } = await makeAccount({ number });
      assert.equal((await resumed.registerAccount(request)).number, number);
    },
    { REGISTRATION: 'otp', CODES__SMS: 'log' },
  );

  story('registering a number again takes its account over, and old devices are told', async ({ sender, receiver, register, linkTo }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { aci, number } = bob.client.device;
    const tablet = await (await linkTo(bob, receiver)).open(receiver);
    await alice.client.send(aci, 'to both');
    await tablet.read(1);

    const again = await register(sender, 'Bob again', { number });
    assert.equal(again.aci, aci);
    for (const window of [bob, tablet]) {
      await window.until(() => window.interruptions.length > 0, `the connection of ${window.name} to be closed`);
      assert.equal(window.interruptions[0]?.code, ErrorCode.ConnectionInvalidated, `${window.interruptions[0]}`);
    }
    await refusal(bob.person.open(receiver), ErrorCode.DeviceDelinked);

    const stale = await refusal(sendTo(alice, aci, await borrowedContents(alice)), ErrorCode.MismatchedDevices);
    assert.deepEqual(stale.entries.map(lists), [{ account: aci, missing: [], extra: [], stale: [1] }]);
    // The keys are others: the library refuses them until a person has accepted them.
    await refusal(alice.client.send(aci, 'to whom'), ErrorCode.UntrustedIdentity);
    alice.client.device.trustAgain(aci);
    await alice.client.send(aci, 'to the new phone');
    const window = await again.open(receiver);
    assert.deepEqual(await window.read(1), ['to the new phone']);
  });

  story('the recovery password registers a number without a code', async ({ sender, receiver }) => {
    const number = someNumber();
    const first = await registered(sender, number);
    const stranger = await makeAccount({ number });
    const net = receiver.server.openNet();
    const wrong = net.reregisterAccount({ ...stranger.request, e164: number });
    await refusal(wrong, ErrorCode.RegistrationRecoveryVerificationFailed);
    const { recoveryPassword } = first;
    const owner = await makeAccount({ number, attributes: { recoveryPassword } });
    const account = await net.reregisterAccount({ ...owner.request, e164: number });
    assert.equal(account.reregistration, true);
    assert.equal(account.aci.getServiceIdString(), first.aci);
    const person = new Person('Alice', named(owner.device, account));
    const window = await person.open(sender);
    await window.queueEmpty();
    await person.close();
  });

  story('a locked number is RegistrationLock, and its owner is not disturbed', async ({ sender, receiver }) => {
    const number = someNumber();
    const registrationLock = 'ab'.repeat(32);
    const person = new Person('Alice', await registered(sender, number, { attributes: { registrationLock } }));
    const window = await person.open(receiver);
    const thief = await makeAccount({ number });
    const service = await verify(remembering(sender.server.openNet()), { number, code: CODE });
    const locked = await refusal(service.registerAccount(thief.request), ErrorCode.RegistrationLock);
    const day = 24 * 3600;
    assert.ok(locked.timeRemainingSeconds > 7 * day && locked.timeRemainingSeconds <= 8 * day, 'seven days, and this one');
    assert.equal(locked.svr2Username, null);
    await window.roundTrip();
    assert.deepEqual(window.interruptions, []);
    await person.close();

    const owner = await registered(sender, number, { attributes: { registrationLock } });
    assert.equal(owner.aci, person.aci);
  });

  story('an old phone that can hand its data over is asked first', async ({ sender }) => {
    const number = someNumber();
    const capabilities = new Set(['spqr', 'transfer']);
    const old = await registered(sender, number, { attributes: { capabilities } });
    const { device, request } = await makeAccount({ number, skipDeviceTransfer: false });
    const service = await verify(remembering(sender.server.openNet()), { number, code: CODE });
    await refusal(service.registerAccount(request), ErrorCode.RegistrationDeviceTransferPossibleNotSkipped);
    const account = await service.registerAccount({ ...request, skipDeviceTransfer: true });
    assert.equal(named(device, account).aci, old.aci);
  });

  story('keys that another identity signed are refused, and nothing is registered', async ({ sender }) => {
    const number = someNumber();
    const [alice, other] = [await makeAccount({ number }), await makeAccount({ number })];
    const service = await verify(remembering(sender.server.openNet()), { number, code: CODE });
    const { aciSignedPreKey } = other.request;
    const refused = service.registerAccount({ ...alice.request, aciSignedPreKey });
    await assert.rejects(refused, /did not pass server validation/);
    const account = await service.registerAccount(alice.request);
    assert.equal(account.reregistration, false);
  });

  story('a closed server registers nobody', async ({ sender }) => {
    const number = someNumber();
    await assert.rejects(open(sender, number), /403/);
  }, { REGISTRATION: 'closed' });
}

function open(node, e164) {
  return remembering(node.server.openNet()).createRegistrationSession({ e164 });
}

function resume(node, e164, sessionId) {
  return remembering(node.server.openNet()).resumeRegistrationSession({ sessionId, e164 });
}

/** A registered device. */
async function registered(node, number, options) {
  const service = await verify(remembering(node.server.openNet()), { number, code: CODE });
  const { device, request } = await makeAccount({ number, ...options });
  return named(device, await service.registerAccount(request));
}
