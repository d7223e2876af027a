// Registers a new account: a verification session, the code, then the account with its identity and signed keys. All of
// it runs through libsignal's own registration service.

import { randomBytes, randomInt } from 'node:crypto';

import { IdentityKeyPair, Net } from './signal.mjs';
import { Device } from './device.mjs';
import { makeKyberPreKey, makeSignedPreKey } from './keys.mjs';

/**
 * Returns a registered {@link Device} that has not published one-time prekeys yet.
 * @param {Net.Net} net
 * @param {{ number: string, code: string }} options beside these, those of {@link makeAccount}
 */
export async function register(net, { number, code, ...options }) {
  const service = await verify(net, { number, code });
  const { device, request } = await makeAccount({ number, ...options });
  return named(device, await service.registerAccount(request));
}

/** Proves the number; the returned service can then register an account for it. */
export async function verify(net, { number, code }) {
  const service = await net.createRegistrationSession({ e164: number });
  if (!service.sessionState.verified) {
    await service.requestVerification({ transport: 'sms', client: 'blind-relay-chat', languages: [] });
    if (!(await service.verifySession(code))) throw new WrongCode();
  }
  return service;
}

/**
 * A device with fresh keys, and what the server has to be told of it.
 * @param {{ number: string, attributes?: object, skipDeviceTransfer?: boolean }} options `attributes` are account
 *   attributes that differ from the usual ones
 */
export async function makeAccount({ number, attributes = {}, skipDeviceTransfer = true }) {
  const device = new Device({
    deviceId: 1,
    number,
    password: randomBytes(24).toString('base64url'),
    registrationId: randomInt(1, 0x3fff),
    pniRegistrationId: randomInt(1, 0x3fff),
    accessKey: new Uint8Array(randomBytes(16)),
    recoveryPassword: new Uint8Array(randomBytes(32)),
    identity: IdentityKeyPair.generate(),
    pniIdentity: IdentityKeyPair.generate(),
  });
  const { signed, lastResort } = await makeSignedKeys(device);

  // The wire interface wants keys for the number's own identity (PNI) too. This program never writes to or reads from
  // a PNI, so their private halves are dropped.
  const pniSigned = makeSignedPreKey(1, device.pniIdentity);
  const pniLastResort = makeKyberPreKey(2, device.pniIdentity);

  const request = {
    accountPassword: device.password,
    skipDeviceTransfer,
    accountAttributes: new Net.AccountAttributes({
      recoveryPassword: device.recoveryPassword,
      aciRegistrationId: device.registrationId,
      pniRegistrationId: device.pniRegistrationId,
      registrationLock: null,
      unidentifiedAccessKey: device.accessKey,
      unrestrictedUnidentifiedAccess: false,
      capabilities: new Set(['spqr']),
      discoverableByPhoneNumber: false,
      ...attributes,
    }),
    aciPublicKey: device.identity.publicKey,
    pniPublicKey: device.pniIdentity.publicKey,
    aciSignedPreKey: signed,
    pniSignedPreKey: pniSigned,
    aciPqLastResortPreKey: lastResort,
    pniPqLastResortPreKey: pniLastResort,
  };
  return { device, request };
}

/** Makes the two keys without which a device cannot be written to, and keeps their private halves. */
export async function makeSignedKeys(device) {
  const signed = makeSignedPreKey(device.nextKeyId++, device.identity);
  const lastResort = makeKyberPreKey(device.nextKeyId++, device.identity);
  await device.signedPreKeyStore.saveSignedPreKey(signed.id(), signed);
  await device.kyberPreKeyStore.saveKyberPreKey(lastResort.id(), lastResort);
  device.lastResortId = lastResort.id();
  return { signed, lastResort };
}

/** The device with the names that the server gave its account. */
export function named(device, account) {
  device.aci = account.aci.getServiceIdString();
  device.pni = account.pni?.getRawUuid() ?? null;
  return device;
}

export class WrongCode extends Error {
  constructor() {
    super('the server did not accept the verification code');
    this.name = 'WrongCode';
  }
}
