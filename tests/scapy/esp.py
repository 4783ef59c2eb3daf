"""scapy as an independent ESP implementation, asked over standard input.

One JSON object a line in, one out:
  {"op": "seal", algorithm, key_salt, spi, sequence, esn, inner}  -> {"esp": hex}
  {"op": "open", algorithm, key_salt, spi, sequence, esn, esp}    -> {"inner": hex} or {"refused": reason}
All octets are hex; "algorithm" is scapy's name, "key_salt" the key followed by four octets of salt
(RFC 4106 section 8.1) or of nonce (RFC 3686 section 5.1). With "integrity", scapy's name, comes
"integrity_key".
"""

import json
import logging
import struct
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.layers.inet import IP  # noqa: E402
from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation  # noqa: E402

OUTER = {"src": "192.0.2.1", "dst": "192.0.2.2"}


class WithUpperHalf:
    """An integrity algorithm over the whole extended sequence number (RFC 4303, section 2.2.1).

    scapy leaves its upper half, which is not on the wire, out of ESP's ICV.
    """

    def __init__(self, algorithm, upper):
        self.algorithm = algorithm
        self.upper = struct.pack("!L", upper)

    def __getattr__(self, name):
        return getattr(self.algorithm, name)

    def icv(self, octets, key):
        mac = self.algorithm.new_mac(key)
        mac.update(octets + self.upper)
        return mac.finalize()[: self.algorithm.icv_size]

    def sign(self, esp, key):
        esp.data += self.icv(bytes(esp), key)

    def verify(self, esp, key):
        octets = bytes(esp)
        at = len(octets) - self.algorithm.icv_size
        if octets[at:] != self.icv(octets[:at], key):
            raise IPSecIntegrityError("the ICV differs")


def association(ask):
    sa = scapy_association(ask)
    if ask["esn"] and ask.get("integrity"):
        sa.auth_algo = WithUpperHalf(sa.auth_algo, ask["sequence"] >> 32)
    return sa


def scapy_association(ask):
    return SecurityAssociation(
        ESP,
        spi=ask["spi"],
        crypt_algo=ask["algorithm"],
        crypt_key=bytes.fromhex(ask["key_salt"]),
        auth_algo=ask.get("integrity"),
        auth_key=bytes.fromhex(ask.get("integrity_key", "")) or None,
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
