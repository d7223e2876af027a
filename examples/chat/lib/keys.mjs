// Makes prekeys. The private halves go into the device's stores, the returned objects are what the server is given.

import { KEMKeyPair, KyberPreKeyRecord, PreKeyRecord, PrivateKey, SignedPreKeyRecord } from './signal.mjs';
import { base64 } from './device.mjs';

export async function makeOneTimePreKeys(device, count) {
  const preKeys = [];
  const pqPreKeys = [];
  for (let i = 0; i < count; i += 1) {
    const id = device.nextKeyId++;
    const key = PrivateKey.generate();
    await device.preKeyStore.savePreKey(id, PreKeyRecord.new(id, key.getPublicKey(), key));
    preKeys.push({ keyId: id, publicKey: base64(key.getPublicKey().serialize()) });

    const kyber = makeKyberPreKey(device.nextKeyId++, device.identity);
    await device.kyberPreKeyStore.saveKyberPreKey(kyber.id(), kyber);
    pqPreKeys.push(toJson(kyber));
  }
  return { preKeys, pqPreKeys };
}

export function makeSignedPreKey(id, identity) {
  const key = PrivateKey.generate();
  const signature = identity.privateKey.sign(key.getPublicKey().serialize());
  return SignedPreKeyRecord.new(id, Date.now(), key.getPublicKey(), key, signature);
}

export function makeKyberPreKey(id, identity) {
  const pair = KEMKeyPair.generate();
  return KyberPreKeyRecord.new(id, Date.now(), pair, identity.privateKey.sign(pair.getPublicKey().serialize()));
}

/** A signed or Kyber prekey as the server's JSON wants it. */
export function toJson(record) {
  return {
    keyId: record.id(),
    publicKey: base64(record.publicKey().serialize()),
    signature: base64(record.signature()),
  };
}
