"""scapy as an independent ESP implementation, asked over standard input.

One JSON object a line in, one out:
  {"op": "seal", algorithm, key_salt, spi, sequence, esn, inner}  -> {"esp": hex}
  {"op": "open", algorithm, key_salt, spi, sequence, esn, esp}    -> {"inner": hex} or {"refused": reason}
All octets are hex; "algorithm" is scapy's name, "key_salt" the key followed by four octets of salt
(RFC 4106 section 8.1).
"""

import json
import logging
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.layers.inet import IP  # noqa: E402
from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation  # noqa: E402

OUTER = {"src": "192.0.2.1", "dst": "192.0.2.2"}


def association(ask):
    return SecurityAssociation(
        ESP,
        spi=ask["spi"],
        crypt_algo=ask["algorithm"],
        crypt_key=bytes.fromhex(ask["key_salt"]),
        tunnel_header=IP(**OUTER),
        esn_en=ask["esn"],
        esn=ask["sequence"] >> 32 if ask["esn"] else 0,
    )


def seal(ask):
    inner = IP(bytes.fromhex(ask["inner"]))
    packet = association(ask).encrypt(inner, seq_num=ask["sequence"] & 0xFFFFFFFF)
    return {"esp": bytes(packet[ESP]).hex()}


def open_(ask):
    packet = IP(bytes(IP(proto=50, **OUTER) / bytes.fromhex(ask["esp"])))
    try:
        return {"inner": bytes(association(ask).decrypt(packet, verify=True)).hex()}
    except IPSecIntegrityError:
        return {"refused": "integrity"}


for line in sys.stdin:
    ask = json.loads(line)
    answer = seal(ask) if ask["op"] == "seal" else open_(ask)
    print(json.dumps(answer), flush=True)
