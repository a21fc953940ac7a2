#!/usr/bin/env python3
"""Recomputes the manifest of an event file from the rules of docs/publishing.md, sharing no code with the product.

    python3 tests/oracle/recompute.py [--request-ids] EVENTS.ndjson > manifest.json

With --request-ids the manifest's "requests" is not how many creation requests there are, but their ids.

Each line is {"topic", "partition", "key", "value", "headers"}: bytes in base64, null as null, headers as [name, value].
Lines of one partition stand in its order. Standard library only.
"""

import base64
import hashlib
import json
import re
import sys
from datetime import datetime, timedelta, timezone

DEPTH_MAX = 128
U64_MAX = 2**64 - 1


class Refused(Exception):
    """An event that becomes a dead letter; its argument is the reason."""


class Number(str):
    """A JSON number by its digits."""


# ---------------------------------------------------------------- decoding

def decode(raw):
    """One JSON text, strictly: UTF-8, no byte order mark, no name twice, no lone surrogate, bounded depth."""
    if (raw[:1] == b"\0" and len(raw) >= 5) or raw[:4] == b"Obj\x01":
        raise Refused("framing")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("undecodable")
    if text.startswith("\ufeff") or too_deep(text):
        raise Refused("undecodable")

    def members(pairs):
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise Refused("undecodable")
        return dict(pairs)

    def constant(_):
        raise Refused("undecodable")

    try:
        value = json.loads(text, object_pairs_hook=members, parse_int=Number, parse_float=Number, parse_constant=constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate does not encode
    except (ValueError, RecursionError):
        raise Refused("undecodable")
    return value


def too_deep(text):
    depth = deepest = 0
    inside = escaped = False
    for letter in text:
        if inside:
            if escaped:
                escaped = False
            elif letter == "\\":
                escaped = True
            elif letter == '"':
                inside = False
        elif letter == '"':
            inside = True
        elif letter in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "]}":
            depth -= 1
    return deepest > DEPTH_MAX


def envelope(line):
    """Source, id, type, time and data, from binary or structured mode."""
    value = line["value"]
    if value is None:
        raise Refused("tombstone")
    raw = base64.b64decode(value)
    if not raw:
        raise Refused("empty")
    headers = {name: base64.b64decode(text).decode() for name, text in line["headers"] if text is not None}
    body = decode(raw)
    if "ce_specversion" in headers:
        attributes = {name[3:]: text for name, text in headers.items() if name.startswith("ce_")}
        attributes["data"] = body
    else:
        attributes = body
    if not isinstance(attributes, dict):
        raise Refused("schema")
    if attributes.get("type") not in TYPES:
        raise Refused("unclassified")
    for name in ("specversion", "source", "id"):
        if not text(attributes.get(name)) or attributes[name] == "":
            raise Refused("schema")
    return attributes


# ---------------------------------------------------------------- schemas

def text(value):
    return isinstance(value, str) and not isinstance(value, Number)


def number(value):
    return isinstance(value, Number)


def integer(value):
    return number(value) and re.fullmatch(r"0|[1-9][0-9]*", value) is not None


def version(value):
    return integer(value) or isinstance(value, list) and 1 <= len(value) <= 4 and all(map(integer, value))


def texts(value):
    return isinstance(value, list) and all(map(text, value))


def tags(value):
    return isinstance(value, dict) and all(map(text, value.values()))


def amount(value):
    return text(value) or number(value)


def choice(*allowed):
    return lambda value: text(value) and value in allowed


TRANSACTION = {
    "required": {"transaction_id": text, "wallet_id": text, "amount": amount, "asset": text},
    "optional": {"hash": text, "from": text, "to": text, "fee": amount, "block_number": integer, "error": text},
}

TYPES = {
    "wallet.requested": {
        "required": {"user_id": text, "chain": text, "custody": choice("hsm", "kms", "vendor"), "alias": text},
        "optional": {"generation": integer, "request_id": text, "priority": text, "tenant": text},
    },
    "wallet.created": {
        "required": {
            "wallet_id": text, "blockchain_type": text, "address": text, "owner": text, "provider": text,
            "version": version,
        },
        "optional": {"provider_wallet_id": text, "request_id": text},
    },
    "wallet.updated": {
        "required": {"wallet_id": text, "version": version},
        "optional": {"label": text, "tags": tags},
    },
    "wallet.status_changed": {
        "required": {
            "wallet_id": text, "wallet_status": choice("pending", "active", "frozen", "closed"), "version": version,
        },
        "optional": {"reason": text},
    },
    "mapping.granted": {
        "required": {
            "user_id": text, "wallet_id": text, "role": choice("owner", "operator", "viewer"), "scopes": texts,
            "granted_by": text, "version": version,
        },
        "optional": {},
    },
    "mapping.revoked": {
        "required": {"user_id": text, "wallet_id": text, "revoked_by": text, "version": version},
        "optional": {},
    },
    "transaction.submitted": TRANSACTION,
    "transaction.confirmed": TRANSACTION,
    "transaction.failed": TRANSACTION,
}


def validate(kind, data):
    if not isinstance(data, dict):
        raise Refused("schema")
    schema = TYPES[kind]
    for name, fits in schema["required"].items():
        if name not in data or not fits(data[name]):
            raise Refused("schema")
    for name, fits in schema["optional"].items():
        if name in data and not fits(data[name]):
            raise Refused("schema")
    if kind == "wallet.updated" and "label" not in data and "tags" not in data:
        raise Refused("schema")


# ---------------------------------------------------------------- addresses

def keccak256(data):
    rotations, constants, state = [], [], 1
    for _ in range(24):
        constant = 0
        for bit in range(7):
            if state & 1:
                constant |= 1 << ((1 << bit) - 1)
            state = (state << 1) ^ (0x171 if state & 0x80 else 0)
        constants.append(constant)
    x, y, spots = 1, 0, []
    for step in range(24):
        spots.append((x, y))
        rotations.append((step + 1) * (step + 2) // 2 % 64)
        x, y = y, (2 * x + 3 * y) % 5
    mask = U64_MAX

    def turn(lane, by):
        return ((lane << by) | (lane >> (64 - by))) & mask if by else lane

    rate = 136
    padded = bytearray(data) + b"\x01" + b"\x00" * (rate - 1 - len(data) % rate)
    padded[-1] |= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for block in range(0, len(padded), rate):
        for at in range(rate // 8):
            lanes[at % 5][at // 5] ^= int.from_bytes(padded[block + 8 * at:block + 8 * at + 8], "little")
        for constant in constants:
            columns = [lanes[x][0] ^ lanes[x][1] ^ lanes[x][2] ^ lanes[x][3] ^ lanes[x][4] for x in range(5)]
            for x in range(5):
                mix = columns[(x - 1) % 5] ^ turn(columns[(x + 1) % 5], 1)
                for y in range(5):
                    lanes[x][y] ^= mix
            moved, (x, y) = lanes[1][0], (1, 0)
            for step in range(24):
                nx, ny = y, (2 * x + 3 * y) % 5
                moved, lanes[nx][ny] = lanes[nx][ny], turn(moved, rotations[step])
                x, y = nx, ny
            for y in range(5):
                row = [lanes[x][y] for x in range(5)]
                for x in range(5):
                    lanes[x][y] = row[x] ^ (~row[(x + 1) % 5] & mask & row[(x + 2) % 5])
            lanes[0][0] ^= constant
    return b"".join(lanes[at % 5][at // 5].to_bytes(8, "little") for at in range(4))


assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def base58(address):
    value = 0
    for letter in address:
        if letter not in BASE58:
            raise Refused("mapping")
        value = value * 58 + BASE58.index(letter)
    zeros = len(address) - len(address.lstrip("1"))
    return b"\0" * zeros + value.to_bytes((value.bit_length() + 7) // 8, "big")


def evm(address):
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", address):
        raise Refused("mapping")
    digits = address[2:]
    lower = digits.lower()
    if digits not in (lower, digits.upper()):
        mark = keccak256(lower.encode()).hex()
        if digits != "".join(c.upper() if int(m, 16) > 7 else c for c, m in zip(lower, mark)):
            raise Refused("mapping")
    return "0x" + lower


def solana(address):
    if len(base58(address)) != 32:
        raise Refused("mapping")
    return address


def crc16(data):
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def stellar(address):
    if not re.fullmatch(r"G[A-Z2-7]{55}", address):
        raise Refused("mapping")
    raw = base64.b32decode(address)
    if raw[0] != 6 << 3 or crc16(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
        raise Refused("mapping")
    return address


def bitcoin(address):
    if address.lower().startswith("bc1"):
        return segwit(address)
    raw = base58(address)
    check = hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4]
    if len(raw) != 25 or raw[0] not in (0, 5) or check != raw[-4:]:
        raise Refused("mapping")
    return address


def segwit(address):
    lower = address.lower()
    if address not in (lower, address.upper()) or not 14 <= len(address) <= 74:
        raise Refused("mapping")
    if any(letter not in BECH32 for letter in lower[3:]):
        raise Refused("mapping")
    data = [BECH32.index(letter) for letter in lower[3:]]
    check = 1
    for value in [3, 3, 0, 2, 3] + data:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, part in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            if top >> bit & 1:
                check ^= part
    if check != (1 if data[0] == 0 else 0x2BC830A3) or data[0] > 16:
        raise Refused("mapping")
    return lower


def long_hex(address):
    if not re.fullmatch(r"0x[0-9a-fA-F]{64}", address):
        raise Refused("mapping")
    return address.lower()


def opaque(address):
    if not address:
        raise Refused("mapping")
    return address


ADDRESSES = {"ext": opaque, "evm": evm, "solana": solana, "stellar": stellar, "bitcoin": bitcoin, "aptos": long_hex, "sui": long_hex}
CHAINS = re.compile(r"evm:[1-9][0-9]*|solana:mainnet|stellar:pubnet|bitcoin:mainnet|aptos:1|sui:mainnet")


def wallet(wallet_id):
    """Chain and canonical address."""
    if wallet_id.startswith("ext:"):
        return "ext", opaque(wallet_id[4:])
    chain, _, address = wallet_id.rpartition(":")
    if not CHAINS.fullmatch(chain):
        raise Refused("mapping")
    return chain, ADDRESSES[chain.split(":")[0]](address)


# ---------------------------------------------------------------- mapping

def exact_amount(value):
    if not re.fullmatch(r"(0|-?[1-9][0-9]*|-?0\.[0-9]+|-?[1-9][0-9]*\.[0-9]+)", value):
        raise Refused("mapping")


def stored_version(value):
    parts = [value] if number(value) else list(value)
    if any(int(part) > U64_MAX for part in parts):
        raise Refused("mapping")
    parts += ["0"] * (4 - len(parts))
    return "".join(part.rjust(20, "0") for part in parts)


def moment(value):
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)", value)
    if not match:
        raise Refused("mapping")
    base, fraction, zone = match.groups()
    when = datetime.strptime(base, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    if zone != "Z":
        sign = 1 if zone[0] == "+" else -1
        when -= sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
    return when.strftime("%Y-%m-%dT%H:%M:%S") + "." + (fraction or "").ljust(6, "0") + "Z"


def map_event(kind, data, time):
    """What the event asks for: None, ("request", digest) or (key, group, version, attributes)."""
    time = moment(time)
    chain = address = None
    if "wallet_id" in data:
        chain, address = wallet(data["wallet_id"])
        wallet_id = f"{chain}:{address}"
        canonical = ADDRESSES[chain.split(":")[0]]
        for name in ("from", "to"):
            if name in data:
                canonical(data[name])
    for name in ("amount", "fee"):
        if name in data:
            exact_amount(data[name])
    if kind == "wallet.requested":
        if not CHAINS.fullmatch(data["chain"]) or data["chain"].startswith("bitcoin"):
            raise Refused("mapping")
        if int(data.get("generation", "1")) < 1:
            raise Refused("mapping")
        parts = [data.get("tenant", ""), data["user_id"], data["chain"], data["custody"], data["alias"],
                 str(data.get("generation", "1"))]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part.encode()).to_bytes(4, "big") + part.encode())
        return ("request", data.get("request_id", digest.hexdigest()))
    if kind.startswith("transaction."):
        return None
    standing = stored_version(data["version"])
    if kind == "wallet.created":
        if data["blockchain_type"] != chain.split(":")[0] or canonical(data["address"]) != address:
            raise Refused("mapping")
        group, names = "identity", ("owner", "provider", "provider_wallet_id", "request_id")
    elif kind == "wallet.updated":
        group, names = "profile", ("label", "tags")
    elif kind == "wallet.status_changed":
        group, names = "status", ("wallet_status", "reason")
    elif kind == "mapping.granted":
        group, names = "mapping", ("role", "scopes", "granted_by")
    else:
        group, names = "mapping", ("revoked_by",)
    attributes = {name: data[name] for name in names if name in data}
    if group == "identity":
        attributes["address"] = address
    if group == "mapping":
        granted = kind == "mapping.granted"
        attributes["status"] = "active" if granted else "revoked"
        attributes["granted_at" if granted else "revoked_at"] = time
    key = f"{data['user_id']}|{wallet_id}" if group == "mapping" else wallet_id
    return (key, group, standing, attributes)


# ---------------------------------------------------------------- the fold

def canonical_json(value):
    """Equal for equal content: members sorted, numbers by their digits and unlike strings."""
    if number(value):
        return f"n:{value}"
    if isinstance(value, list):
        return [canonical_json(item) for item in value]
    if isinstance(value, dict):
        return {name: canonical_json(item) for name, item in sorted(value.items())}
    return f"s:{value}" if isinstance(value, str) else value


def recompute(lines):
    seen, requests, wallets, mappings = {}, set(), {}, {}
    consumed = recorded = duplicate = 0
    dead = {}
    for line in lines:
        consumed += 1
        try:
            event = envelope(line)
            kind, data = event["type"], event.get("data")
            validate(kind, data)
            asked = map_event(kind, data, event["time"])
            identity = (event["source"], event["id"])
            content = json.dumps([kind, canonical_json(data)], sort_keys=True)
            if identity in seen:
                if seen[identity] != content:
                    raise Refused("conflict")
                duplicate += 1
                continue
            seen[identity] = content
        except Refused as refused:
            reason = refused.args[0]
            dead[reason] = dead.get(reason, 0) + 1
            continue
        recorded += 1
        if asked is None:
            continue
        if asked[0] == "request":
            requests.add(asked[1])
            continue
        key, group, standing, attributes = asked
        if group == "mapping":
            groups, name = mappings, key
        else:
            groups = wallets.setdefault(key, {"status": {"wallet_status": "pending", "version": ""}})
            name = group
        if name not in groups or groups[name]["version"] < standing:
            groups[name] = {**attributes, "version": standing}
    return {
        "consumed": consumed, "recorded": recorded, "duplicate": duplicate, "skipped": 0, "dead_lettered": dead,
        "records": len(seen), "requests": sorted(requests), "wallets": wallets, "mappings": mappings,
    }


def main():
    *options, path = sys.argv[1:] or [""]
    if not path or options not in ([], ["--request-ids"]):
        sys.exit(__doc__)
    with open(path, encoding="utf-8") as file:
        manifest = recompute(json.loads(line) for line in file)
    if not options:
        manifest["requests"] = len(manifest["requests"])
    json.dump(manifest, sys.stdout, indent=2, sort_keys=True, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
